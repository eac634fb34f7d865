"""LoRAs: what a job declares by name, and what a row asks of them, `style:0.8+detail:0.5`, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.spelling import did_you_mean
from framefleet.pipeline.hooks.adapters import Adapters
from framefleet.pipeline.model.specs.refusal import Refused, shown

ARGUMENT = "lora"  # the column, and the place among a row's arguments
NONE = "none"  # in a row: no LoRA, whatever the job's default is
MAX_WEIGHT = 1000  # people use up to 2; fp16 ends at 65,504
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Where a LoRA comes from.

    path: a file, a folder, `org/name` of the hub, or a URL of a file or folder. revision: of the hub. file:
    the one to take, where there are several. component: what it changes, if not what diffusers chooses; for
    the low noise of Wan 2.2 "transformer_2". sha256: what the file must be; None until it was read.
    """

    path: str
    revision: str | None = None
    file: str | None = None
    component: str | None = None
    allow_pickle: bool = False
    sha256: str | None = None


def loras_of(given: Mapping[str, str | Path | Mapping[str, Any] | Lora]) -> dict[str, Lora]:
    """Return declared LoRAs by name. Raises JobError for names that a row could not give."""
    for name in given:
        if not NAME.fullmatch(name) or name == NONE:
            raise JobError(
                f"loras: {name!r} cannot be a LoRA's name",
                f"use letters, digits, - and _; {NONE!r} stands for no LoRA",
            )
    return {name: _lora_of(value) for name, value in given.items()}


def _lora_of(value: str | Path | Mapping[str, Any] | Lora) -> Lora:
    if isinstance(value, Lora):
        return value
    return Lora(**value) if isinstance(value, Mapping) else Lora(path=str(value))


def check_loras(text: Any, declared: Mapping[str, Lora]) -> dict[str, dict[str, Any]] | Refused:
    """Return what a row asks for, by name: {"style": {"sha256": "...", "weight": 0.8}}; {} for none.

    It is part of the row's identity, so it names the file's content, and not where it lies.
    """
    if not isinstance(text, str):
        return Refused(reason="it must be text", fix="write it as style:0.8 or style:0.8+detail:0.5")
    found: dict[str, dict[str, Any]] = {}
    for part in text.split("+") if text.strip() not in ("", NONE) else ():
        name, colon, weight = (piece.strip() for piece in part.partition(":"))
        if name not in declared:
            return _unknown(name, declared)
        if name in found:
            return Refused(reason=f"it names {name!r} twice", fix="give it once, with one weight")
        number = _number(weight) if colon else 1.0
        if number is None:
            fix = f"use a number from -{MAX_WEIGHT:,} to {MAX_WEIGHT:,}, as {name}:0.8"
            return Refused(reason=f"{shown(weight)} is not a weight", fix=fix)
        found[name] = {"sha256": declared[name].sha256, "weight": number}
        if component := declared[name].component:
            found[name]["component"] = component
    return found


def adapters_in(arguments: Mapping[str, Any]) -> Adapters:
    """Return the adapters that checked arguments ask for, in the one order in which they are added."""
    return tuple((adapter_name(name), asked["weight"]) for name, asked in sorted(_asked(arguments).items()))


def digests_in(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of every LoRA that a row's checked arguments name."""
    return {name: asked["sha256"] for name, asked in _asked(arguments).items()}


def without_loras(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that the pipeline takes."""
    return {name: value for name, value in arguments.items() if name != ARGUMENT}


def adapter_name(name: str) -> str:
    """Return what peft calls a LoRA.

    Not its own name: peft takes `a` for a part of its prefix `lora_`, and `keys` for a method.
    """
    return f"adapter_{name}"


def _asked(arguments: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    asked: Mapping[str, Mapping[str, Any]] = arguments.get(ARGUMENT, {})
    return asked


def _unknown(name: str, declared: Mapping[str, Lora]) -> Refused:
    if not declared:
        return Refused(
            reason="the job declares no LoRA", fix=f"declare it: `loras: {{{name or 'style'}: ...}}`"
        )
    return Refused(reason=f"the job declares no LoRA {shown(name)}", fix=did_you_mean(name, declared))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number + 0.0 if abs(number) <= MAX_WEIGHT else None  # + 0.0: -0.0 is the same row as 0.0
