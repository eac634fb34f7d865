"""From JSON in an output, which anybody may have written, to a checked value; every damage is a JobError."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.stores.store import Store

_MAX_BYTES = 1 << 26  # job.json of a model of ten thousand files has one megabyte
OTHER = "put it back as it was, or choose another output"

Value = TypeVar("Value")


def read_json(store: Store, path: str, kind: TypeAdapter[Value], *, fix: str = OTHER) -> Value:
    """Return what a file of the output says; FileNotFoundError when it is not there. fix: of damage."""
    content = store.read(path, _MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise not_ours(store.url_of(path), f"it has more than {_MAX_BYTES:,} bytes", fix)
    return read_as(kind, content, store.url_of(path), fix=fix)


def read_as(kind: TypeAdapter[Value], text: str | bytes, where: str, *, fix: str = OTHER) -> Value:
    """Return what JSON says. where: what messages call it."""
    try:
        return kind.validate_python(parse_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise not_ours(where, f"{place}: {first['msg']}" if place else first["msg"], fix) from None
    except ValueError as error:
        raise not_ours(where, str(error), fix) from None


def not_ours(where: str, reason: str, fix: str = OTHER) -> JobError:
    return JobError(f"{where} is not as framefleet wrote it: {reason}", fix)
