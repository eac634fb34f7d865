"""What is known of families of models beyond their configs."""
