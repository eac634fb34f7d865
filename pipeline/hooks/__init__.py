"""Between a pipeline and its modules: intercepted calls, their arguments, and the state around them."""
