"""The base class of all pydantic models, which check text that people or files give us."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class MustBe:
    """Annotates a type with what its value must be, for errors: pydantic would show a pattern."""

    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(handler(source), "must_be", custom_error_message=self.words)


NonEmpty = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Refuses unknown keys, and does not take "8" for a number.

    Numbers must be finite: JSON, and therefore a row's identity, has no others.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def by_type(value: object) -> object:
    """Return a mapping that has a type alone as it is written in full, e.g. for a `BeforeValidator`."""
    return {"type": value} if isinstance(value, str) else value
