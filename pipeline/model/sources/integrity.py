"""The SHA-256 of a model's files, one digest for all, and how they differ from model.lock.json.

The hub's cache and ours contain links to blobs that are named by a hash, so a blob that changed on disk is
recognised without a network. The hub names large files by SHA-256 and small ones by git's SHA-1; our cache
names all by SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError, count_text, quoted
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.model.sources.headers import GGUF, check_file_size, read_first
from framefleet.pipeline.model.sources.selection import SAFETENSORS
from framefleet.pipeline.model.specs.model_index import MAX_JSON_BYTES

# One thread hashes 1.7 GB/s, and more than four are faster than usual disks.
_MAX_THREADS = 4

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")
LOCK_FILE = "model.lock.json"
_MAX_SHOWN = 5


def file_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
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
    """Return the SHA-256 of the sorted lines `SHA-256  file`, as sha256sum writes them."""
    lines = "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_digests(
    folder: Path, digests: Mapping[str, str], expected: Mapping[str, str], *, named_by: str
) -> None:
    """Raise ModelError if a digest is not the expected one. named_by: where that comes from."""
    if wrong := [file for file, digest in digests.items() if expected.get(file, digest) != digest]:
        path, digest = folder / wrong[0], digests[wrong[0]]
        more = f", and {count_text(len(wrong) - 1, 'more file')}" if len(wrong) > 1 else ""
        differs = f"its SHA-256 is {digest}, {named_by} has {expected[wrong[0]]}{more}"
        fix = f"delete {path.resolve()} and fetch it again" + " by the same command" * path.is_symlink()
        raise ModelError(f"{path} is corrupted or a different file: {differs}", fix)


def check_sha256(where: str, digest: str, expected: str | None) -> None:
    """Raise ModelError if a file is not the one that its job, its lock or its source expects."""
    if expected and digest != expected:
        problem = f"{where} is not the expected file: its SHA-256 is {digest}, but should be {expected}"
        fix = "restore the file, the same on every machine; if a file in a cache is broken, delete it"
        raise ModelError(problem, fix)


def checked_digest(path: Path, expected: str | None, *, where: str) -> str:
    """Return a file's SHA-256. Raises ModelError if it is missing, incomplete or not the expected one."""
    if not path.is_file():
        raise ModelError(f"{where} does not exist", "put the same file on every machine of the cluster")
    if path.suffix in (SAFETENSORS, GGUF):
        check_file_size(path)
    digest = sha256_of(path)
    check_sha256(where, digest, expected)
    return digest


def named_sha256(path: Path) -> str | None:
    """Return the SHA-256 in the name of a cached file; None for other files."""
    return _name(path, _SHA256)


def is_named(path: Path) -> bool:
    """Return whether a file is a link to one that is named by its content."""
    return bool(_name(path, _SHA256) or _name(path, _GIT))


def check_git_names(folder: Path, files: Iterable[str]) -> None:
    """Raise ModelError for a changed file whose name is git's SHA-1. Others are skipped."""
    for file in files:
        path = folder / file
        if (name := _name(path, _GIT)) and name != git_hash(path.read_bytes()):
            fix = f"delete {path.resolve()} and fetch it again by the same command"
            raise ModelError(f"{path} is corrupted: it does not match the hash in its name", fix)


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _name(path: Path, form: re.Pattern[str]) -> str | None:
    if not path.is_symlink():
        return None
    blob = path.resolve()
    return blob.name if blob.parent.name == "blobs" and form.fullmatch(blob.name) else None


def check_links(folder: Path, files: Iterable[str]) -> None:
    """Raise ModelError for a link to a file elsewhere, e.g. to a private key.

    Links of a cache are allowed: they lead to blobs, which are compared with the hash in their name.
    """
    inside = folder.resolve()
    for file in files:
        path, place = folder / file, (folder / file).resolve()
        if not place.is_relative_to(inside) and not is_named(path):
            fix = f"if it belongs to the model, put a copy there: {quoted('cp', '-rL', folder, 'COPY')}"
            raise ModelError(f"{path} is a link to {place}, which is not in the model's folder", fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLock:
    """A model's files when it was locked."""

    source: str  # its source's name in records
    revision: str | None  # the hub's commit
    class_name: str
    sizes: Mapping[str, int]  # in bytes, of every file that loading reads
    digests: Mapping[str, str]  # their SHA-256

    def to_json(self) -> str:
        content: dict[str, Any] = {"source": self.source, "revision": self.revision, "class": self.class_name}
        content["digest"] = model_digest(self.digests)
        content["files"] = {
            name: {"size": self.sizes[name], "sha256": sha256}
            for name, sha256 in sorted(self.digests.items())
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def parse_lock(content: bytes, where: str) -> ModelLock:
    """Return the lock in `content`. Raises ModelError if it is damaged."""
    try:
        values: dict[str, Any] = parse_json(content)
        source, revision, class_name = values["source"], values["revision"], values["class"]
        sizes = {name: file["size"] for name, file in values["files"].items()}
        digests = {name: file["sha256"] for name, file in values["files"].items()}
        are_texts = {*map(type, (source, revision or "", class_name, *digests.values()))} == {str}
        are_numbers = {*map(type, sizes.values())} <= {int}
        if are_texts and are_numbers and values["digest"] == model_digest(digests):
            origin = {"source": source, "revision": revision, "class_name": class_name}
            return ModelLock(**origin, sizes=sizes, digests=digests)
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise ModelError(f"{where} is not a complete lock file", "make it again with `framefleet model lock`")


def read_lock(path: Path) -> ModelLock:
    if not path.is_file():  # reading a pipe would wait
        raise ModelError(f"lock file {path} is not a file", "check its path")
    content = read_first(path, MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ModelError(f"lock file {path} has more than {MAX_JSON_BYTES:,} bytes", "check its path")
    return parse_lock(content, str(path))


def check_lock(
    lock: ModelLock, *, where: str, revision: str | None, sizes: Mapping[str, int], digests: Mapping[str, str]
) -> None:
    """Raise ModelError if a model is not the locked one. digests: of files that are already hashed."""
    wrong = [f"{name} is missing" for name in sorted(lock.digests.keys() - sizes)]
    wrong += [f"{name} is not in the lock" for name in sorted(sizes.keys() - lock.digests)]
    for name in sorted(lock.digests.keys() & sizes):
        if sizes[name] != lock.sizes[name]:
            wrong.append(f"{name} has {count_text(sizes[name], 'byte')}, the lock says {lock.sizes[name]:,}")
        elif digests.get(name, lock.digests[name]) != lock.digests[name]:
            wrong.append(f"{name} has SHA-256 {digests[name]}, the lock says {lock.digests[name]}")
    if not wrong:
        return
    at, fix = "", "fetch the model again"
    if lock.revision and revision and lock.revision != revision:
        at = f": it is revision {revision}, the lock is for {lock.revision}"
        fix = f"set `model.revision: {lock.revision}`"
    more = [f"and {count_text(len(wrong) - _MAX_SHOWN, 'more file')}"] * (len(wrong) > _MAX_SHOWN)
    lines = "\n".join(f"  {line}" for line in wrong[:_MAX_SHOWN] + more)
    fix += ", or run `framefleet model lock` if the change is intended"
    raise ModelError(f"{where} differs from its lock{at}\n{lines}", fix)
