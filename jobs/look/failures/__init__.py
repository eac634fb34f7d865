"""Rows that failed, told one by one."""
