"""The SHA-256 of a model's files, one digest for all, and files of a cache that are named by their content.

The hub's cache and ours hold links to blobs with the name of a hash, so that a blob that changed on disk is
recognised without a network. The hub names large files by their SHA-256 and small ones by git's SHA-1; our
cache names all by SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.selection import MAX_FOLDER_DEPTH
from framefleet.pipeline.model.specs.model_index import INDEXES
from framefleet.pipeline.text import quoted

# One thread hashes 1.7 GB/s; more than four are faster than the disks that models lie on.
_MAX_THREADS = 4

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


def list_files(folder: Path) -> list[str]:
    """Return the files that are not too deep to be loaded, of a pipeline or of another folder."""
    is_pipeline = any((folder / index).is_file() for index in INDEXES)
    depth = MAX_FOLDER_DEPTH if is_pipeline else 2
    found = [path for above in range(depth) for path in folder.glob("*/" * above + "*")]
    return sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())


def file_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    names = list(files)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        return dict(zip(names, threads.map(lambda name: sha256_of(folder / name), names), strict=True))


def sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error


def model_digest(digests: Mapping[str, str]) -> str:
    """Return SHA-256 over the sorted lines `SHA-256  file`, as sha256sum writes them."""
    lines = "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_digests(
    folder: Path, found: Mapping[str, str], expected: Mapping[str, str], *, named_by: str
) -> None:
    """Raise ModelError when a file of `found` is not the one that `named_by` expects."""
    wrong = [file for file, digest in found.items() if expected.get(file, digest) != digest]
    if not wrong:
        return
    path = folder / wrong[0]
    more = f", and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
    raise ModelError(
        f"{path} is corrupted or another file: its SHA-256 is {found[wrong[0]]}, "
        f"{named_by} has {expected[wrong[0]]}{more}",
        f"delete {path.resolve()} and fetch it again" + (" by the same command" if path.is_symlink() else ""),
    )


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
