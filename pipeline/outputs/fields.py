"""What outputs of diffusers call frames and sound. Imports no NumPy."""

from __future__ import annotations

IMAGES = ("images", "image")  # of these the first dimension is a batch
PICTURES = ("frames", "video", *IMAGES)
SOUND = ("audio", "audios", "sound")
