"""From a callable to the parameters that a table may give: names, kinds and defaults."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Scalar = str | int | float | bool
ScalarKind = Literal["str", "int", "float", "bool"]
InputKind = Literal["image", "video"]
ArgumentKind = ScalarKind | InputKind | Literal["model"]

# Parameters that take PIL images or lists of them: a cell holds the path or URL of one.
INPUTS: dict[str, InputKind] = {
    "image": "image",
    "last_image": "image",
    "mask_image": "image",
    "control_image": "image",
    "video": "video",
    "control_video": "video",
    "pose_video": "video",
    "face_video": "video",
    "background_video": "video",
    "mask_video": "video",
}

# Parameters of recipes that take a loaded model, which makes such a thing from text: a cell holds its name in
# the job.
MODELS: dict[str, InputKind] = {"image_model": "image", "keyframe_model": "video"}

# What framefleet sets itself, or what would make one row several clips.
PLUMBING = re.compile(r"output_type|return_dict|generator|callback.*|num_(videos|images)_per_prompt")
_KINDS: dict[Any, ScalarKind] = {str: "str", bool: "bool", int: "int", float: "float"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a pipeline's `__call__` or of a recipe.

    kind: what a table's cell must be; None for tensors, lists and plumbing, which no cell can give.
    default: what the signature has, when that is a scalar.
    """

    name: str
    kind: ArgumentKind | None
    default: Scalar | None = None
    required: bool = False


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the named parameters of `function` in order, without `self` and the catch-alls."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError):  # annotations meant for type checkers only
        signature = inspect.signature(function)
    fixed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(_parameter(p) for p in signature.parameters.values() if p.kind in fixed and p.name != "self")


def _parameter(parameter: inspect.Parameter) -> Parameter:
    kind: ArgumentKind | None = None
    if not PLUMBING.fullmatch(parameter.name):
        kind = "model" if parameter.name in MODELS else _kind(parameter) or INPUTS.get(parameter.name)
    given = parameter.default if parameter.default is not inspect.Parameter.empty else None
    default = given if kind != "model" and kind and isinstance(given, str | int | float) else None
    if kind == "float" and isinstance(default, int):
        default = float(default)  # some write `guidance_scale: float = 6`
    required = parameter.default is inspect.Parameter.empty
    return Parameter(name=parameter.name, kind=kind, default=default, required=required)


def _kind(parameter: inspect.Parameter) -> ScalarKind | None:
    """Return the scalar that the annotation allows, or else the default's own type."""
    annotation: Any = parameter.annotation
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return _KINDS.get(type(parameter.default))
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    members = typing.get_args(annotation) if union else (annotation,)
    found = [_KINDS[member] for member in members if member in _KINDS]
    return "float" if "float" in found else found[0] if found else None
