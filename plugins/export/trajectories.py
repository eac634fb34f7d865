"""The clips of an output with what `keep:` stored of how each was made: latents of steps, sigmas, embeddings.

Each array is a .npy file, a member of a tar or a cell of a Parquet file, with the values that the row had:
NumPy has no bfloat16, so that is widened to float32. Nothing is computed again.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framefleet.api.errors import JobError
from framefleet.plugins.export.formats import ParquetShard, TarShard

# A row's arrays by name, each over all of its steps or calls.
LATENTS, EMBEDDINGS = "latents", "text_embeddings"
STEPS = "latent_steps"  # which ones `latents` has, counted from 0, the noise
ARRAYS = (LATENTS, "timesteps", "sigmas", "log_probs")
Array = npt.NDArray[Any]


def trajectory_of(content: bytes, where: str) -> tuple[dict[str, Array], list[int], list[Array]]:
    """Return a row's arrays, the steps of its latents, and its text embeddings, from its file in extras/.

    latents: (steps, ...), without the dimension of the batch. Raises JobError where it has no latents.
    """
    from safetensors.torch import load  # knows bfloat16, and imports torch

    tensors = {name: tensor.float() if tensor.dtype.itemsize == 2 and tensor.is_floating_point() and "bfloat" in str(tensor.dtype) else tensor for name, tensor in load(content).items()}
