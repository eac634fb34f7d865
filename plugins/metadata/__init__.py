"""The settings of old pictures and clips, read from their files as rows of a job."""
