"""What stands between a pipeline and its modules: calls seen on their way."""
