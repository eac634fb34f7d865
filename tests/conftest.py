"""Torch and Ray as a worker has them."""

from __future__ import annotations

import os
import secrets
import signal

import torch

# A shell has its background jobs ignore SIGINT, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# On a CPU the number of threads chooses kernels and with them bits.
torch.set_num_threads(1)
# To join a cluster that wants a token this must be set before Ray is imported. One token for those that tests
# start and join in one process, where Ray reads it once.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
