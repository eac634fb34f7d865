"""Worker processes that start warm: forks of one that has imported torch and diffusers already."""
