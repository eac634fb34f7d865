"""How a model computes and where its weights are: attention, compiling, caches, quantisation, offload."""
