"""What is known of families of models beyond their configs: a file each, and one table of all."""
