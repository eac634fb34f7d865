"""Torch and Ray as a worker has them."""

from __future__ import annotations

import os

import torch

# On a CPU the number of threads chooses kernels and with them bits.
torch.set_num_threads(1)
# What Ray sets for a cluster that it starts; to join one of another process it must be set before the import.
os.environ.setdefault("RAY_AUTH_MODE", "token")
