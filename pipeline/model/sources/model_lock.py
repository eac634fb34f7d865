"""model.lock.json: which files a model consists of, as text and back, and how a model differs from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.model_index import MAX_JSON_BYTES

LOCK_FILE = "model.lock.json"
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLock:
    """What a model was when it was locked.

    source: where it came from, as a record names it. revision: the hub's commit. sizes, digests: in bytes and
    SHA-256, of every file that is loaded.
    """

    source: str
    revision: str | None
    class_name: str
    sizes: Mapping[str, int]
    digests: Mapping[str, str]

    def to_json(self) -> str:
        files = {
            name: {"size": self.sizes[name], "sha256": self.digests[name]} for name in sorted(self.digests)
        }
        content = {
            "source": self.source,
            "revision": self.revision,
            "class": self.class_name,
            "digest": model_digest(self.digests),
            "files": files,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def parse_lock(content: bytes, where: str) -> ModelLock:
    """Return the lock that `content` holds. Raises ModelError when it is damaged."""
    try:
        found: dict[str, Any] = parse_json(content)
        lock = ModelLock(
            source=found["source"],
            revision=found["revision"],
            class_name=found["class"],
            sizes={name: file["size"] for name, file in found["files"].items()},
            digests={name: file["sha256"] for name, file in found["files"].items()},
        )
        texts = (lock.source, lock.revision or "", lock.class_name, *lock.digests.values())
        is_typed = {*map(type, texts)} == {str} and {*map(type, lock.sizes.values())} <= {int}
        is_whole = is_typed and found["digest"] == model_digest(lock.digests)
    except (ValueError, LookupError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ModelError(f"{where} is not a whole lock file", "make it again with `framefleet model lock`")
    return lock


def read_lock(path: Path) -> ModelLock:
    if path.exists() and not path.is_file():
        raise ModelError(f"lock file {path} is not a file", "check its path")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ModelError(f"lock file {path} cannot be read: {error.strerror}", "check its path") from error
    if len(content) > MAX_JSON_BYTES:
        raise ModelError(f"lock file {path} has more than {MAX_JSON_BYTES:,} bytes", "check its path")
    return parse_lock(content, str(path))


def check_lock(
    lock: ModelLock, *, where: str, revision: str | None, sizes: Mapping[str, int], digests: Mapping[str, str]
) -> None:
    """Raise ModelError when a model is not the locked one.

    sizes: of every file that would be loaded; digests: of those whose SHA-256 is known before they are read.
    """
    wrong = [f"{name} is missing" for name in sorted(lock.digests.keys() - sizes)]
    wrong += [f"{name} is not in the lock" for name in sorted(sizes.keys() - lock.digests)]
    for name in sorted(lock.digests.keys() & sizes):
        if sizes[name] != lock.sizes[name]:
            wrong.append(f"{name} has {sizes[name]} bytes, the lock says {lock.sizes[name]}")
        elif digests.get(name, lock.digests[name]) != lock.digests[name]:
            wrong.append(f"{name} has SHA-256 {digests[name]}, the lock says {lock.digests[name]}")
    if not wrong:
        return
    is_other = lock.revision and revision and lock.revision != revision
    at = f": it is revision {revision}, the lock is of {lock.revision}" if is_other else ""
    more = [f"and {len(wrong) - _MAX_SHOWN} more files"] * (len(wrong) > _MAX_SHOWN)
    raise ModelError(
        f"{where} differs from its lock{at}\n" + "\n".join(f"  {line}" for line in wrong[:_MAX_SHOWN] + more),
        (f"set `model.revision: {lock.revision}`, or " if is_other else "fetch the model again, or ")
        + "run `framefleet model lock` if the change is meant",
    )
