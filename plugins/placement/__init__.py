"""Several devices for one model, with the bits of one."""
