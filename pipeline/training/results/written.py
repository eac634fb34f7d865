"""In: a small JSON file that a training wrote into its output. Out: the value, or that it is damaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from framefleet.pipeline.errors import JobError

Written = TypeVar("Written")

_adapter: Callable[[Any], TypeAdapter[Any]] = cache(
    TypeAdapter
)  # made once: it is asked for every line of a file


def written(kind: type[Written], content: bytes, where: str, *, delete: str) -> Written:
    """Return the dataclass that JSON spells.

    Raises JobError for anything else, with what to delete: the output may be anybody's.
    """
    try:
        found: Written = _adapter(kind).validate_json(content, strict=True)
    except ValueError:  # pydantic's, for JSON that is damaged or nests too deep as well
        problem = f"{where} is damaged: it is not what framefleet writes"
        raise JobError(problem, f"delete {delete}, and run the same command") from None
    return found
