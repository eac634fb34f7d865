"""Check the arguments of public functions against their annotations, before anything is done."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from annotated_types import Ge

from framefleet.pipeline.errors import JobError, shown

AtLeastOne: TypeAlias = Annotated[int, Ge(1)]

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
_NAMES = {str: "a text", bool: "True or False", int: "a whole number", float: "a number", NoneType: "None"}
_MANY: tuple[Any, ...] = (Sequence, Collection, Iterable)
_MANY_CHECKED = 1000  # of a list: later values fail where they are used
_OWN_WORDS = ("job", "table")  # functions check these themselves


def check_arguments(function: AnyFunction) -> AnyFunction:
    """Return the function so that it raises JobError for an argument of another type."""
    parameters = inspect.signature(function).parameters.values()
    hints = {
        parameter.name: _evaluated(parameter.annotation, function)
        for parameter in parameters
        if parameter.name not in _OWN_WORDS
    }
    names = [each.name for each in parameters if each.kind == each.POSITIONAL_OR_KEYWORD]
    place = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def with_checks(*args: Any, **kwargs: Any) -> Any:
        for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
            if name in hints:
                _check(place, name, value, hints[name])
        return function(*args, **kwargs)

    with_checks.__module__ = "framefleet"  # where pickle finds it
    return with_checks  # type: ignore[return-value]


# So that `framefleet.render` is the same function each time.
check_arguments_once = cache(check_arguments)


def check_fields(value: Any) -> None:
    """Raise JobError for a field of a dataclass whose value has the wrong type."""
    kind = type(value)
    for field in fields(value):
        _check(kind.__name__, field.name, getattr(value, field.name), _evaluated(field.type, kind))


def _check(place: str, name: str, value: Any, hint: Any) -> None:
    if not _fits(value, hint):
        text = "" if name.endswith("options") else f"{shown(value)}, "  # options may be secrets
        problem = f"{place}: {name} is {text}of type {type(value).__name__}"
        raise JobError(problem, f"it must be {_words(hint)}")


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return the type; Any if there is none, or if only type checkers import it."""
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        return eval(annotation, vars(sys.modules[function.__module__]))
    except NameError:
        return Any


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is Annotated:
        return _fits(value, inner[0]) and value >= inner[1].ge
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in inner)
    if origin is Literal:
        return isinstance(value, str) and (value in inner or len(inner) > 1)  # the function lists them all
    if origin in _MANY:
        is_list = not isinstance(value, str | bytes) and isinstance(value, Iterable)
        if not is_list or (origin is Sequence and isinstance(value, Mapping)):
            return False
        return not isinstance(value, list | tuple) or all(
            _fits(element, inner[0]) for element in value[:_MANY_CHECKED]
        )
    kind = origin or kind
    kind = {int: Integral, float: Real, str: str | PathLike, dict: Mapping}.get(kind, kind)
    is_bool = isinstance(value, bool) and kind in (Integral, Real)
    return not is_bool and (not isinstance(kind, type | UnionType) or isinstance(value, kind))


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_words(inner[0])} of at least {inner[1].ge}"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin is Literal:
        return f"one of {', '.join(inner)}" if len(inner) > 1 else repr(inner[0])
    if origin in _MANY:
        return f"a list (each {_words(inner[0])})"
    if origin in (Mapping, dict):
        return "a mapping"
    if origin is Callable:
        return "a function"
    return _NAMES.get(kind) or f"a {kind.__name__}"
