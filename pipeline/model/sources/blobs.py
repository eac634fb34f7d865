"""Cached files, in the hub's cache and in ours: links to blobs that are named by a hash of their content.

So a blob that changed on disk is recognised by its own name, without a network. The hub names large files by
their SHA-256 and small ones by git's SHA-1; our cache names all by SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.text import quoted

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


def named_sha256(path: Path) -> str | None:
    """Return the SHA-256 that a cached file is named by; None for other files."""
    return _name(path, _SHA256)


def is_named(path: Path) -> bool:
    """Tell whether a file is a link to one that is named by its content."""
    return bool(_name(path, _SHA256) or _name(path, _GIT))


def count_named(folder: Path, files: Iterable[str]) -> int:
    """Return how many files are named by their content."""
    return sum(is_named(folder / file) for file in files)


def check_git_names(folder: Path, files: Iterable[str]) -> None:
    """Raise ModelError for a file that git's SHA-1 names and that has changed. Others are passed over."""
    for file in files:
        path = folder / file
        name = _name(path, _GIT)
        if name is not None and name != git_hash(path.read_bytes()):
            raise ModelError(
                f"{path} is corrupted: it is not what the hub named it by",
                f"delete {path.resolve()} and fetch it again by the same command",
            )


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _name(path: Path, form: re.Pattern[str]) -> str | None:
    if not path.is_symlink():
        return None
    blob = path.resolve()
    return blob.name if blob.parent.name == "blobs" and form.fullmatch(blob.name) else None


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
                f"if it belongs to the model, put a copy there: {quoted('cp', '-rL', folder, 'COPY')}",
            )
