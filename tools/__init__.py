"""What developers run by hand: benchmarks, chaos, conformance, the fuzzer, checks of the house."""
