"""From a `scheduler` cell with settings, `euler(timestep_spacing=trailing)`, to a name and checked values.

The settings are those of the scheduler's class, as `from_config(config, timestep_spacing="trailing")` takes
them. Cells are not trusted: only scalars, and none that decides how much memory is taken.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.errors import UserError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.refusal import shown
from framefleet.pipeline.model.specs.signature import Scalar, ScalarKind

_CELL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_SETTING = re.compile(r"\s*(\w+)\s*=\s*([\w.+-]+)\s*")
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_TRAINED = frozenset({"num_train_timesteps", "trained_betas"})  # the model's own: arrays of that length
_MOST = 1e6  # far beyond every shift, order and offset; steps count to 1,000
_FORM = "write `name(setting=value, ...)`, as euler(timestep_spacing=trailing)"
_KINDS: dict[ScalarKind, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
}
_EXPECTED: dict[ScalarKind, str] = {
    "bool": "true or false",
    "int": f"a whole number of at most {_MOST:,.0f}",
    "float": f"a number of at most {_MOST:,.0f}",
    "str": "a word",
}


def parse_scheduler(cell: str) -> tuple[str, dict[str, Scalar | None]]:
    """Return the name and the settings that a cell writes; what they may be is not checked."""
    if "(" not in cell:
        return cell, {}
    whole = _CELL.fullmatch(cell)
    parts = whole[2].split(",") if whole and whole[2].strip() else []
    settings = [_SETTING.fullmatch(part) for part in parts]
    if whole is None or not all(settings):
        raise UserError(f"settings of a scheduler cannot be read in {shown(cell)}", _FORM)
    return whole[1], {found[1]: _value(found[2]) for found in settings if found}


def written(name: str, settings: Mapping[str, Scalar | None]) -> str:
    """Return the one way to write a scheduler with settings; `parse_scheduler` takes it back."""
    if not settings:
        return name
    return f"{name}({', '.join(f'{key}={value}' for key, value in sorted(settings.items()))})"


def checked_settings(class_name: str, settings: Mapping[str, Scalar | None]) -> dict[str, Scalar | None]:
    """Return the settings as the scheduler's class takes them. Raises UserError for what it does not take."""
    taken = _taken(class_name) if settings else {}
    return {key: _checked(class_name, key, value, taken) for key, value in settings.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """One of a class. words: the only ones that it may be, where its annotation lists them."""

    kind: ScalarKind
    may_be_none: bool
    words: tuple[str, ...]


def _checked(class_name: str, key: str, value: Scalar | None, taken: Mapping[str, _Setting]) -> Scalar | None:
    if key not in taken:
        near = nearest(key, [*taken])
        fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(taken))}"
        raise UserError(f"{class_name} has no setting {shown(key)} that a row may give", fix)
    setting = taken[key]
    if not (setting.may_be_none if value is None else _fits(value, setting)):
        fix = f"give {' or '.join(setting.words) or _EXPECTED[setting.kind]}"
        raise UserError(f"{key} of {class_name} cannot be {shown(value)}", fix)
    return float(value) if setting.kind == "float" and value is not None else value


def _taken(class_name: str) -> dict[str, _Setting]:
    """Return the settings of a class that a row may give."""
    parameters = inspect.signature(class_named(class_name).__init__, eval_str=True).parameters
    kinds = {name: _kind(parameter) for name, parameter in parameters.items() if name not in _TRAINED}
    return {
        name: _Setting(
            kind=kind,
            may_be_none=parameters[name].default is None or type(None) in _members(parameters[name]),
            words=tuple(member for member in _members(parameters[name]) if isinstance(member, str)),
        )
        for name, kind in kinds.items()
        if kind
    }


def _kind(parameter: inspect.Parameter) -> ScalarKind | None:
    """Return what a setting is: by its annotation, which may list words, or else by its default."""
    members = {type(member) if isinstance(member, str) else member for member in _members(parameter)}
    kinds = [kind for kind, (*_, last) in _KINDS.items() if last in {*members, type(parameter.default)}]
    return kinds[-1] if kinds else None


def _members(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Return the types and words that an annotation allows."""
    return typing.get_args(parameter.annotation) or (parameter.annotation,)


def _value(text: str) -> Scalar | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _fits(value: Scalar, setting: _Setting) -> bool:
    if isinstance(value, bool) or setting.kind == "bool":
        return isinstance(value, bool) and setting.kind == "bool"
    if isinstance(value, str):
        return setting.kind == "str" and (not setting.words or value in setting.words)
    return isinstance(value, _KINDS[setting.kind]) and abs(value) <= _MOST  # which NaN is not
