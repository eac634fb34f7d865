"""A stand-in for CUDA on a torch that was built for the CPU alone; see `tests/README.md`."""
