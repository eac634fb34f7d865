"""What outputs of diffusers call frames and sound. Imports no NumPy."""

from __future__ import annotations

CLIPS = ("frames", "video")
IMAGES = ("images", "image")  # of these the first dimension is a batch
PICTURES = (*CLIPS, *IMAGES)
SOUND = ("audio", "audios", "sound")
