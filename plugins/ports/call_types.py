"""Types of what pipelines take besides tensors and numbers, and of what they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

Generators: TypeAlias = torch.Generator | list[torch.Generator] | None
# Called with the pipeline, the step, its timestep and some tensors; returns those that are to be replaced.
StepCallback: TypeAlias = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any]]


@dataclass
class ClipsOutput(BaseOutput):
    """frames: clips of PIL images, or an array (B, T, H, W, 3) in [0, 1], or a tensor (B, T, 3, H, W)."""

    frames: Any
