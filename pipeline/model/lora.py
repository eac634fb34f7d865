"""LoRAs: those that a job declares by name, those that a row uses (`style:0.8+detail:0.5`), their files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import JobError, ModelError, Refused, shown
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.hooks.adapters import Adapters
from framefleet.pipeline.model.sources.folder_source import Source
from framefleet.pipeline.model.sources.integrity import check_links, checked_digest
from framefleet.pipeline.model.sources.leftovers import listed
from framefleet.pipeline.model.sources.selection import PICKLES, SAFETENSORS, is_junk, is_weights
from framefleet.pipeline.model.sources.source import HUB_ID, open_source

ARGUMENT = "lora"  # the column, and the place among a row's arguments
NONE = "none"  # in a row: no LoRA, not even the job's default
MAX_WEIGHT = 1000  # people use up to 2; fp16 ends at 65,504
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# peft's name of the adapter, which DiffSynth leaves in the names of weights.
ADAPTER_IN_NAME = re.compile(
    r"(\.lora_(?:A|B|magnitude_vector))\.(?!weight$|bias$)\w+(?=(\.weight|\.bias)?$)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Where a LoRA comes from."""

    path: str  # a file, a folder, `org/name` of the hub, or a URL of a file or folder
    revision: str | None = None  # on the hub
    file: str | None = None  # which file, if there are several
    # The component that it changes, if not diffusers' choice; "transformer_2" for the low noise of Wan 2.2.
    component: str | None = None
    allow_pickle: bool = False
    sha256: str | None = None  # of the file; None before it is read


def loras_of(declared: Mapping[str, str | Path | Mapping[str, Any] | Lora]) -> dict[str, Lora]:
    """Return declared LoRAs by name. Raises JobError for names that a row cannot use."""
    loras = {}
    for name, value in declared.items():
        if not NAME.fullmatch(name) or name == NONE:
            fix = f"use letters, digits, - and _; {NONE!r} stands for no LoRA"
            raise JobError(f"loras: {name!r} cannot be a LoRA's name", fix)
        if not isinstance(value, Lora):
            value = Lora(**value) if isinstance(value, Mapping) else Lora(path=str(value))
        loras[name] = value
    return loras


def check_loras(text: Any, declared: Mapping[str, Lora | Refused]) -> dict[str, dict[str, Any]] | Refused:
    """Return a row's LoRAs by name: {"style": {"sha256": "...", "weight": 0.8}}; {} for none.

    They are part of the row's identity, so they have the file's SHA-256, and not its place.
    declared: Refused says why a LoRA does not fit the row's model.
    """
    if not isinstance(text, str):
        return Refused(reason="it must be text", fix="write it as style:0.8 or style:0.8+detail:0.5")
    checked: dict[str, dict[str, Any]] = {}
    for part in text.split("+") if text.strip() not in ("", NONE) else ():
        if part.strip().startswith("<lora:"):
            return Refused(
                reason="it has angle brackets", fix="write it as style:0.8 or style:0.8+detail:0.5"
            )
        name, colon, weight = (piece.strip() for piece in part.partition(":"))
        if not declared:
            fix = f"declare it: `loras: {{{name or 'style'}: ...}}`"
            return Refused(reason="the job declares no LoRA", fix=fix)
        if name not in declared:
            return Refused(reason=f"the job declares no LoRA {shown(name)}", fix=did_you_mean(name, declared))
        lora = declared[name]
        if isinstance(lora, Refused):
            return lora
        if name in checked:
            return Refused(reason=f"it names {name!r} twice", fix="name it once, with one weight")
        try:
            number = float(weight) if colon else 1.0
        except ValueError:
            number = math.nan
        if not abs(number) <= MAX_WEIGHT:
            fix = f"use a number from -{MAX_WEIGHT:,} to {MAX_WEIGHT:,}, e.g. {name}:0.8"
            return Refused(reason=f"{shown(weight)} is not a weight", fix=fix)
        checked[name] = {"sha256": lora.sha256, "weight": number + 0.0}  # -0.0 and 0.0 are the same row
        if lora.component:
            checked[name]["component"] = lora.component
    return checked


def loras_text(loras: Mapping[str, Any]) -> str:
    """Return checked LoRAs as a cell of the column `lora`, sorted by name."""
    return "+".join(f"{name}:{lora['weight']}" for name, lora in sorted(loras.items())) or NONE


def adapters_in(arguments: Mapping[str, Any]) -> Adapters:
    """Return the adapters in checked arguments, in the order in which they are added."""
    loras = sorted(arguments.get(ARGUMENT, {}).items())
    return tuple((adapter_name(name), lora["weight"]) for name, lora in loras)


def without_loras(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != ARGUMENT}


def adapter_name(name: str) -> str:
    """Return a LoRA's name for peft, which confuses `a` with its prefix `lora_`, and `keys` with a method."""
    return f"adapter_{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    lora: Lora  # so that other machines find it: with absolute path or commit, file and SHA-256
    path: Path


def fetch_lora(name: str, lora: Lora, storage_options: Mapping[str, Any] | None = None) -> LoraFile:
    """Return its file, fetched once per machine. Raises ModelError if it is not what was declared."""
    folder, file = _split(name, lora)
    needs, revision = [file] if file else [], lora.revision
    source = open_source(folder, revision=revision, storage_options=storage_options, needs=needs, only=file)
    try:
        if lora.sha256 is None or file is None:
            file = _chosen(name, source, file)
            if Path(os.path.expanduser(lora.path)).is_dir():  # somebody else may have packed it
                check_links(Path(source.path), [file])
        if file.endswith(PICKLES) and not lora.allow_pickle:
            raise ModelError(
                f"loras.{name}: {source.name}/{file} is a pickle, which can run code when it is opened",
                "convert it to safetensors; if you trust where it comes from, "
                f"set `loras.{name}.allow_pickle: true`",
            )
        if not is_weights(file):
            problem = f"loras.{name}: {source.name}/{file} is not a {SAFETENSORS} file"
            raise ModelError(problem, "name one as `file:`")
        path = source.fetch([file]) / file
        expected = lora.sha256 or source.files[file].sha256
    except FileNotFoundError as error:
        raise ModelError(f"loras.{name}: {error}", "check the URL") from None
    digest = checked_digest(path, expected, where=f"loras.{name}: {path}")
    lora = replace(lora, path=source.path, revision=source.revision, file=file, sha256=digest)
    return LoraFile(lora=lora, path=path)


def _split(name: str, lora: Lora) -> tuple[str, str | None]:
    """Return the folder, repository or URL, and the file in it if it is known."""
    path = lora.path.removeprefix("file://").rstrip("/")
    if "://" in path:
        folder, _, last = path.rpartition("/")
        return (folder, last) if lora.file is None and is_weights(last) else (path, lora.file)
    here = Path(os.path.expanduser(path))
    if here.is_file():
        return str(here.parent), here.name
    if not here.exists() and (is_weights(path) or not HUB_ID.fullmatch(path)):
        fix = f"use a {SAFETENSORS} file, a folder, org/name on the hub, or a URL"
        raise ModelError(f"loras.{name}: {here.absolute()} does not exist", fix)
    return path, lora.file


def _chosen(name: str, source: Source, file: str | None) -> str:
    """Return the file to load. Raises ModelError if there is none, or several that may be meant."""
    where = f"loras.{name}: {source.name}"
    there = [path for path in source.files if path == file or not is_junk(path)]
    if file is not None and file not in there:
        raise ModelError(f"{where}/{file} does not exist", _listing(filter(is_weights, there)))
    if file is not None:
        return file
    pickles = [path for path in there if path.endswith(PICKLES)]
    candidates = [path for path in there if path.endswith(SAFETENSORS)] or pickles
    if not candidates:
        raise source.missing(f"{where} has no {SAFETENSORS} file", "check the path")
    if len(candidates) > 1:
        raise ModelError(f"{where} has {len(candidates)} files that may be meant", _listing(candidates))
    return candidates[0]


def _listing(files: Iterable[str]) -> str:
    names = list(files)
    return f"name one as `file:`; there are {listed(names)}" if names else "check the path; it has no weights"
