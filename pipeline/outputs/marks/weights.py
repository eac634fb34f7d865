"""From a watermark's weights to their digest, which locks them: a job continues only with the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.outputs.marks.settings import Watermark


def weights_digest(watermark: Watermark) -> str | None:
    """Return the SHA-256 of a file, or that over the sorted lines `SHA-256  name` of a folder; None without.

    Raises ModelError where they cannot be read.
    """
    if watermark.weights is None:
        return None
    path = Path(watermark.weights)
    try:
        if path.is_file():
            return _sha256(path)
        files = sorted(file for file in path.iterdir() if file.is_file())
        lines = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
    except OSError as error:
        raise ModelError(
            f"marks.watermark: the weights of {watermark.name} at {path} cannot be read: {error.strerror}",
            "give a file or folder that is on this machine and every worker's",
        ) from error
    return hashlib.sha256(lines.encode()).hexdigest()


def locked_weights(watermark: Watermark) -> Path:
    """Return where the weights are. Raises ModelError where they are not those that the job was given."""
    if watermark.digest not in (None, weights_digest(watermark)):
        raise ModelError(
            f"marks.watermark: the weights at {watermark.weights} are not those of the job",
            "put the same file there, on every machine",
        )
    return Path(watermark.weights or "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
