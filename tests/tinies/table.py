"""What a table of tiny pipelines holds of each, and the sizes that most of them render."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import DiffusionPipeline

# By name: how it is built, its smallest call, what it starts from.
Tinies = dict[str, tuple[Callable[[], DiffusionPipeline], dict[str, Any], tuple[str, ...]]]

STEPS: dict[str, Any] = {"num_inference_steps": 2}
IMAGE = {"height": 16, "width": 16, **STEPS}
LARGER = {"height": 32, "width": 32, **STEPS}
EDIT = IMAGE | {"strength": 0.5}
REDRAWN = STEPS | {"strength": 0.5}  # of the picture's own size
