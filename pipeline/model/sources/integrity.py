"""From a pipeline folder's files to the SHA-256 of each, and to one digest for all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.selection import MAX_FOLDER_DEPTH
from framefleet.pipeline.model.specs.model_index import INDEXES

# One thread hashes 1.7 GB/s; more than four are faster than the disks that models lie on.
_MAX_THREADS = 4


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
