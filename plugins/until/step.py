"""The clip step of `until`: its two columns, null in the parts of records, as clips are judged later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa

from framefleet.pipeline.outputs.clip_step import ClipStep
from framefleet.pipeline.outputs.parts.records import MAY_COME_LATER
from framefleet.plugins.until.names import ACCEPTED, SURPLUS
from framefleet.plugins.until.section import UntilSection

MARKS = pa.schema([pa.field(name, pa.bool_(), metadata=MAY_COME_LATER) for name in (ACCEPTED, SURPLUS)])


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceStep(ClipStep):
    """Reserves the columns: records are read with the values that scores/ has."""

    changes_file: ClassVar[bool] = False

    @classmethod
    def open(cls, section: UntilSection | None, *, folder: str | None) -> Self | None:
        return None if section is None else cls()

    @property
    def columns(self) -> pa.Schema:
        return MARKS

    @classmethod
    def for_comparison(cls, section: Any) -> None:
        return None
