"""From a model's folder to what loading it reads."""

from __future__ import annotations

from pathlib import Path

from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import open_weights


def model_files(folder: Path) -> dict[str, str]:
    """Return every file that loading `folder` reads, with its SHA-256; loads no weights."""
    return open_weights(open_source(str(folder))).digests()


def flip_a_byte(path: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
