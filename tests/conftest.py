"""Torch as a worker has it: one thread, since on a CPU their number chooses kernels and with them bits."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
