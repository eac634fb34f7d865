"""How a model computes and where its weights wait: attention, compiling, caches, quantisation, offload."""
