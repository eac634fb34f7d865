"""From a declared LoRA to its one file on this machine, with the SHA-256 of its real bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.loras.lora import Lora
from framefleet.pipeline.model.sources.blobs import check_links
from framefleet.pipeline.model.sources.folder_source import Source
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.model.sources.selection import PICKLES, SAFETENSORS, is_weights
from framefleet.pipeline.model.sources.source import HUB_ID, open_source

_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """A LoRA that is here. lora: as other machines find it, by absolute path or commit, file and SHA-256."""

    lora: Lora
    path: Path


def fetch_lora(name: str, lora: Lora, storage_options: Mapping[str, Any] | None = None) -> LoraFile:
    """Return the LoRA's file, fetched once per machine.

    Raises ModelError when it is missing, a pickle that is not allowed, corrupted, or not `lora.sha256`.
    """
    folder, file = _split(name, lora)
    source = _source(folder, file, lora.revision, storage_options or {})
    try:
        if lora.sha256 is None or file is None:
            file = _chosen(name, source, file, lora)
            if Path(os.path.expanduser(lora.path)).is_dir():  # that somebody else may have packed
                check_links(Path(source.path), [file])
        _check_kind(name, f"{source.name}/{file}", lora)
        path = source.fetch([file]) / file
        expected = lora.sha256 or source.files[file].sha256
    except FileNotFoundError as error:
        raise ModelError(f"loras.{name}: {error}", "check the URL") from None
    if not path.is_file():
        raise ModelError(
            f"loras.{name}: {path} does not exist", "put the same file on every machine of the cluster"
        )
    if file.endswith(SAFETENSORS):
        check_file_size(path)
    found = sha256_of(path)
    if expected and found != expected:
        raise ModelError(
            f"loras.{name}: {path} is another file: its SHA-256 is {found}, and should be {expected}",
            "put the same file on every machine; delete one that is broken in a cache",
        )
    return LoraFile(
        lora=replace(lora, path=source.path, revision=source.revision, file=file, sha256=found), path=path
    )


def _split(name: str, lora: Lora) -> tuple[str, str | None]:
    """Return the folder, repository or URL, and the file in it where it is known."""
    path = lora.path.removeprefix("file://").rstrip("/")
    if "://" in path:
        folder, _, last = path.rpartition("/")
        return (folder, last) if lora.file is None and is_weights(last) else (path, lora.file)
    here = Path(os.path.expanduser(path))
    if here.is_file():
        return str(here.parent), here.name
    if not here.exists() and (is_weights(path) or not HUB_ID.fullmatch(path)):
        raise ModelError(
            f"loras.{name}: {here.absolute()} does not exist",
            f"give a {SAFETENSORS} file, a folder, org/name of the hub, or a URL",
        )
    return path, lora.file


def _source(
    folder: str, file: str | None, revision: str | None, storage_options: Mapping[str, Any]
) -> Source:
    if "://" in folder and file:
        from framefleet.pipeline.model.sources.url_source import UrlSource

        return UrlSource(folder, storage_options, only=file)
    return open_source(
        folder, revision=revision, storage_options=storage_options, needs=[file] if file else []
    )


def _check_kind(name: str, where: str, lora: Lora) -> None:
    if where.endswith(PICKLES) and not lora.allow_pickle:
        raise ModelError(
            f"loras.{name}: {where} is a pickle, which can run code when it is opened",
            "convert it to safetensors; if you trust where it comes from, "
            f"set `loras.{name}.allow_pickle: true`",
        )
    if not is_weights(where):
        raise ModelError(f"loras.{name}: {where} is not a {SAFETENSORS} file", "name one as `file:`")


def _chosen(name: str, source: Source, file: str | None, lora: Lora) -> str:
    """Return the file to take. Raises ModelError when there is none, or no saying which."""
    there, where = source.files, f"loras.{name}: {source.name}"
    if file is not None:
        if file not in there:
            raise ModelError(f"{where}/{file} does not exist", _listing(filter(is_weights, there)))
        return file
    pickles = [found for found in there if found.endswith(PICKLES)]
    found = [found for found in there if found.endswith(SAFETENSORS)] or pickles
    if not found:
        raise ModelError(f"{where} has no {SAFETENSORS} file", "check the path")
    if len(found) > 1:
        raise ModelError(f"{where} has {len(found)} files that may be meant", _listing(found))
    return found[0]


def _listing(files: Iterable[str]) -> str:
    names = sorted(files)
    shown = ", ".join(names[:_MAX_SHOWN]) + f" and {len(names) - _MAX_SHOWN} more" * (len(names) > _MAX_SHOWN)
    return f"name one as `file:`; there are {shown}" if names else "check the path; it has no weights"
