"""Whether a model's files are its own: no link of a folder that somebody else packed leads out of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.blobs import is_named


def check_links(folder: Path, files: Iterable[str]) -> None:
    """Raise ModelError for a file that lies elsewhere, as a link to a private key would.

    What a cache has is let through: links to blobs, which are held against the hash that they are named by.
    """
    inside = folder.resolve()
    for file in files:
        path = folder / file
        place = path.resolve()
        if not place.is_relative_to(inside) and not is_named(path):
            raise ModelError(
                f"{path} is a link to {place}, which is not in the model's folder",
                f"if it belongs to the model, put a copy there: cp -rL {folder} COPY",
            )
