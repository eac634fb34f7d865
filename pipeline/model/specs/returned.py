"""From a pipeline class to the fields of what its call returns, before anything is rendered."""

from __future__ import annotations

import dataclasses
import inspect


def fields_returned(pipeline: type) -> frozenset[str]:
    """Return the fields of the output classes that the code of `__call__` names; empty where it names none.

    Annotations say less: many are "tuple", and some another class's.
    """
    from diffusers.utils import BaseOutput

    call = inspect.unwrap(vars(next(c for c in pipeline.__mro__ if "__call__" in vars(c)))["__call__"])
    named = (call.__globals__.get(name) for name in call.__code__.co_names)
    outputs = [one for one in named if isinstance(one, type) and issubclass(one, BaseOutput)]
    fields = (dataclasses.fields(one) for one in outputs if dataclasses.is_dataclass(one))
    return frozenset(field.name for some in fields for field in some)
