"""A section of the job file: the base class of the core's sections and of plugins'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import ConfigDict, RootModel

from framefleet.pipeline.guards.strict_model import Strict

Key = tuple[str | int, ...]
_Scalar = str | int | float | bool
# Files of several kinds in one list are mappings, e.g. {image: a.png}.
Arguments = dict[str, _Scalar | list[_Scalar | dict[str, str]] | None]
Content = TypeVar("Content")


class SectionFacts:
    """What the core asks of every section, whatever its form."""

    # Keys below it whose texts are paths or URLs; "*" is any name or number.
    paths: ClassVar[tuple[Key, ...]] = ()
    # Whether job.json has it.
    is_stored: ClassVar[bool] = True
    # Keys that only concern files, not the frames and the sound in them.
    of_files: ClassVar[tuple[str, ...]] = ()

    @property
    def column_names(self) -> Sequence[str]:
        """The names of the columns that it adds to records, without opening anything."""
        return ()

    @property
    def for_choice(self) -> Self:
        """The section for a job that renders candidates, some of which are chosen by their columns."""
        return self


class Section(SectionFacts, Strict):
    """A mapping of the job file. The text below a key is its description in the JSON Schema.

    A plugin's section has a default for every key, as a job need not have it; a runner's is None then.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)


class ListSection(SectionFacts, RootModel[Content], Generic[Content]):
    """A section that is a list. A subclass gives `root` a default."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    root: Content

    def __len__(self) -> int:
        return len(self.root)  # type: ignore[arg-type]  # a list


def as_list(value: object) -> Any:
    """Return a value as a list, as a job file may give a single value instead."""
    return value if isinstance(value, list) else [value]
