"""Rows that failed, one by one."""
