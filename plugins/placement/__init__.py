"""Runs one model on several devices, with the same bits as on one."""
