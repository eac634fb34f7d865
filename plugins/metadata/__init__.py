"""Read prompts and settings from the metadata of pictures and clips, as rows of a job."""
