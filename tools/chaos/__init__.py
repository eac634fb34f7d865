"""Jobs on several hosts whose processes are killed, links cut and disks filled while they run."""
