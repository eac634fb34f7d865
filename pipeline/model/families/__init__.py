"""What is known about families of models beyond their configs."""
