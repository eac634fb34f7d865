"""A job, read and checked: what rendering or training it would do, what it needs, and what it would take."""
