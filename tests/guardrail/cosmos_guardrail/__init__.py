"""A stand-in for NVIDIA's package: its class and interface, without the networks that it fetches.

It refuses prompts with the word "forbidden" and clips of BLOCKED_HEIGHT, and takes what is bright in a corner
for a face.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

BLOCKED_HEIGHT = 48
FACE = 4  # pixels a side
BRIGHT = 128


class CosmosSafetyChecker(torch.nn.Module):
    def __init__(self, checkpoint_id: str = "nvidia/Cosmos-1.0-Guardrail") -> None:
        super().__init__()
        self.network = torch.nn.Linear(1, 1)

    def check_text_safety(self, prompt: str) -> bool:
        return "forbidden" not in prompt

    def check_video_safety(self, frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        """Return the frames with faces made grey in place; None where they are unsafe."""
        if frames.shape[1] == BLOCKED_HEIGHT:
            return None
        for frame in frames:
            if frame[:FACE, :FACE].mean() > BRIGHT:
                frame[:FACE, :FACE] = BRIGHT
        return frames

    def to(self, device: Any = None, dtype: Any = None) -> None:  # returns nothing, as the original
        super().to(device=device, dtype=dtype)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32
