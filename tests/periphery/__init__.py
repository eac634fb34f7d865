"""Tests of what is not the core: ports of networks, training, the demo and the tools."""
