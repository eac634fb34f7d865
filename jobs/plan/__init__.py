"""A job, read and checked: what rendering it would do, what it needs, and what it would take."""
