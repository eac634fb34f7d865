"""What the pipelines of diffusers take besides tensors and numbers, as types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Generators: TypeAlias = torch.Generator | list[torch.Generator] | None
# Called with the pipeline, the step, its timestep and some tensors; returns those that are to be replaced.
StepCallback: TypeAlias = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any]]
