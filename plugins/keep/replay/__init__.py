"""Render a recorded row again and compare, or print a script that does."""
