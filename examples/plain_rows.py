"""What the scripts next to framefleet share (docs/compared.md): one row of a table by diffusers, kept once.

A row's key is a digest of its columns, so that a second run finds what is done. A clip and its record are
written under other names first, then renamed: whatever is there is whole. A row that fails is tried three
times, then noted in failures/.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import traceback
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import torch
import transformers

ATTEMPTS = 3
FPS = 16
NOT_ARGUMENTS = ("seed",)

Row = Mapping[str, Any]


def key_of(row: Row) -> str:
    """Return a name for a row, which equal rows share."""
    text = json.dumps({name: row[name] for name in sorted(row)}, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_done(output: Path, row: Row) -> bool:
    return (output / "records" / f"{key_of(row)}.json").exists()


class Renderer:
    """One pipeline, and the output that its clips and records go to."""

    def __init__(self, model: str, output: Path, device: str = "cpu") -> None:
        torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
        self._pipe = diffusers.DiffusionPipeline.from_pretrained(model).to(device)
        self._pipe.set_progress_bar_config(disable=True)
        self._model, self._output = model, output
        for folder in ("clips", "records", "failures"):
            (output / folder).mkdir(parents=True, exist_ok=True)

    def render(self, row: Row) -> bool:
        """Render a row, if it is not done; return whether it now is."""
        if is_done(self._output, row):
            return True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._render(row, attempt)
                return True
            except Exception:  # of any library; the next attempt may be luckier
                error = traceback.format_exc()
        self._write(f"failures/{key_of(row)}.json", json.dumps({**row, "error": error}, default=str).encode())
        return False

    def _render(self, row: Row, attempt: int) -> None:
        started = time.time()
        arguments = {name: value for name, value in row.items() if name not in NOT_ARGUMENTS}
        generator = torch.Generator("cpu").manual_seed(int(row["seed"]))
        frames = self._pipe(**arguments, generator=generator, output_type="np").frames[0]
        pixels = (np.asarray(frames) * 255).round().astype(np.uint8)  # (T, H, W, 3)
        key = key_of(row)
        clip = _encoded(pixels)
        record = {
            **row,
            "clip": f"clips/{key}.mp4",
            "clip_sha256": hashlib.sha256(clip).hexdigest(),
            "frames_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "model": self._model,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "attempt": attempt,
            "worker": os.getpid(),
            "seconds": time.time() - started,
        }
        self._write(f"clips/{key}.mp4", clip)
        self._write(f"records/{key}.json", json.dumps(record, ensure_ascii=False, default=str).encode())

    def _write(self, path: str, content: bytes) -> None:
        file = self._output / path
        own = file.with_name(f".{file.name}-{os.getpid()}")
        try:
            own.write_bytes(content)
            own.replace(file)
        finally:
            own.unlink(missing_ok=True)


def _encoded(pixels: np.ndarray) -> bytes:
    """Return an mp4 of frames of uint8, (T, H, W, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        with av.open(f"{folder}/clip.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "18"})
            stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
            for frame in pixels:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return Path(folder, "clip.mp4").read_bytes()
