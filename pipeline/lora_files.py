"""From a declared LoRA to its one file on this machine, with the SHA-256 of its real bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.headers import check_length
from framefleet.pipeline.integrity import check_digests, file_digests
from framefleet.pipeline.loras import Lora
from framefleet.pipeline.selection import PICKLES
from framefleet.pipeline.source import Source, open_source
from framefleet.pipeline.store import public_url

SAFETENSORS = ".safetensors"
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """A LoRA that is here. lora: as other machines find it, by absolute path or commit, file and SHA-256."""

    lora: Lora
    path: Path


def fetch_lora(name: str, lora: Lora, storage_options: Mapping[str, Any] | None = None) -> LoraFile:
    """Return the LoRA's file, fetched once per machine.

    Raises ModelError when it is missing, a pickle that is not allowed, corrupted, or not `lora.sha256`.
    """
    folder, file = _split(lora)
    if file and file.endswith(PICKLES) and not lora.allow_pickle:
        raise _pickle(name, f"{public_url(folder)}/{file}")
    source = _source(folder, file, lora.revision, storage_options or {})
    if lora.sha256 is None or file is None:
        file = _chosen(name, source, file, lora)
    expected = lora.sha256 or source.files[file].sha256
    path = source.fetch([file]) / file
    if not path.is_file():
        raise ModelError(
            f"loras.{name}: {path} does not exist", "put the same file on every machine of the cluster"
        )
    if file.endswith(SAFETENSORS):
        check_length(path)
    found = file_digests(path.parent, [path.name])
    named_by = "the driver's or the record's" if lora.sha256 else "the hub's"
    check_digests(path.parent, found, {path.name: expected} if expected else {}, named_by=named_by)
    known = replace(lora, path=source.path, revision=source.revision, file=file, sha256=found[path.name])
    return LoraFile(lora=known, path=path)


def _split(lora: Lora) -> tuple[str, str | None]:
    """Return the folder, repository or URL, and the file in it where it is known."""
    path = lora.path.removeprefix("file://").rstrip("/")
    is_url = "://" in path
    is_file = path.endswith((SAFETENSORS, *PICKLES)) or (not is_url and Path(path).expanduser().is_file())
    if not is_file or lora.file is not None:
        return path, lora.file
    if is_url:
        folder, _, file = path.rpartition("/")
        return folder, file
    whole = Path(path).expanduser()
    return str(whole.parent), whole.name


def _source(
    folder: str, file: str | None, revision: str | None, storage_options: Mapping[str, Any]
) -> Source:
    if "://" in folder and file:
        from framefleet.pipeline.url_source import UrlSource

        return UrlSource(folder, storage_options, only=file)
    return open_source(folder, revision=revision, storage_options=storage_options, needs=file)


def _chosen(name: str, source: Source, file: str | None, lora: Lora) -> str:
    """Return the file to take. Raises ModelError when there is none, or no saying which."""
    there, where = source.files, f"loras.{name}: {source.name}"
    if file is not None:
        if file in there:
            return file
        raise ModelError(f"{where}/{file} does not exist", _listing(f for f in there if _is_weights(f)))
    found = [f for f in there if f.endswith(SAFETENSORS)]
    pickles = [f for f in there if f.endswith(PICKLES)]
    if not found and pickles and not lora.allow_pickle:
        raise _pickle(name, f"{source.name}/{pickles[0]}")
    found = found or pickles
    if not found:
        raise ModelError(f"{where} has no {SAFETENSORS} file", "check the path")
    if len(found) > 1:
        raise ModelError(f"{where} has {len(found)} files that may be meant", _listing(found))
    return found[0]


def _is_weights(file: str) -> bool:
    return file.endswith((SAFETENSORS, *PICKLES))


def _listing(files: Iterable[str]) -> str:
    names = sorted(files)
    shown = ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" * (len(names) > MAX_SHOWN))
    return f"name one as `file:`; there are {shown}" if names else "check the path; it has no weights"


def _pickle(name: str, where: str) -> ModelError:
    return ModelError(
        f"loras.{name}: {where} is a pickle, which can run code when it is opened",
        f"convert it to safetensors; if you trust where it comes from, set `loras.{name}.allow_pickle: true`",
    )
