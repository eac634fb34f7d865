"""From a `scheduler` cell with settings, `euler(timestep_spacing=trailing)`, to a name and checked values.

The settings are those of the scheduler's class, as `from_config(config, timestep_spacing="trailing")` takes
them. Cells are not trusted: only scalars, and none that decides how much memory is taken.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.errors import UserError
from framefleet.pipeline.guards.spelling import nearest
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.check import shown
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


def parse_scheduler(cell: str) -> tuple[str, dict[str, Scalar | None]]:
    """Return the name and the settings that a cell writes; what they may be is not checked."""
    if "(" not in cell:
        return cell, {}
    whole = _CELL.fullmatch(cell)
    parts = whole[2].split(",") if whole and whole[2].strip() else []
    settings = [_SETTING.fullmatch(part) for part in parts]
    if whole is None or not all(settings):
        raise UserError(f"the scheduler {shown(cell)} cannot be read", _FORM)
    return whole[1], {found[1]: _value(found[2]) for found in settings if found}


def written(name: str, settings: Mapping[str, Scalar | None]) -> str:
    """Return the one way to write a scheduler with settings; `parse_scheduler` takes it back."""
    if not settings:
        return name
    return f"{name}({', '.join(f'{key}={value}' for key, value in sorted(settings.items()))})"


def check_settings(class_name: str, settings: Mapping[str, Scalar | None]) -> None:
    """Raise UserError for what the scheduler's class does not take."""
    if not settings:
        return
    taken = _taken(class_name)
    for key, value in settings.items():
        if key not in taken:
            near = nearest(key, [*taken])
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(taken))}"
            raise UserError(f"{class_name} has no setting {shown(key)} that a row may give", fix)
        kind, may_be_none = taken[key]
        if not (may_be_none if value is None else _fits(value, kind)):
            raise UserError(f"{key} of {class_name} is {shown(value)}, but it takes a {kind}", _FORM)


def _taken(class_name: str) -> dict[str, tuple[ScalarKind, bool]]:
    """Return the settings of a class: of which kind, and whether they may be none."""
    parameters = inspect.signature(class_named(class_name).__init__, eval_str=True).parameters
    kinds = {name: _kind(parameter) for name, parameter in parameters.items() if name not in _TRAINED}
    return {
        name: (kind, parameters[name].default is None or type(None) in _members(parameters[name]))
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


def _fits(value: Scalar, kind: ScalarKind) -> bool:
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    is_bounded = isinstance(value, str) or (math.isfinite(value) and abs(value) <= _MOST)
    return isinstance(value, _KINDS[kind]) and is_bounded
