"""Names of the plugin in job files and records."""

UNTIL = "until"  # section of a job file
ACCEPTED, SURPLUS = "accepted", "surplus"  # columns of records
