"""The section `scores` of a job file. Imports nothing heavy: each job file is read with it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from framefleet.jobs.job.section import Key, ListSection, Section

SIMILARITY = "similarity"


class SimilaritySection(Section):
    """A score: how well a clip matches its prompt."""

    similarity: Annotated[str, Field(min_length=1)]
    """Folder of a CLIP model, on every worker's machine."""


class ScoresSection(ListSection[list[str | SimilaritySection]]):
    """Scores of every clip, measured in the background, columns of records: sharpness, motion, flicker,
    is_black, is_static, num_torn_frames, {similarity: CLIP_FOLDER}, yours as module:function."""

    root: list[str | SimilaritySection] = Field(default_factory=list)
    paths: ClassVar[tuple[Key, ...]] = (("*", SIMILARITY),)

    @property
    def names(self) -> list[str]:
        return [score for score in self.root if isinstance(score, str)]

    @property
    def folders(self) -> list[str]:
        """The folders of CLIP models."""
        return [score.similarity for score in self.root if not isinstance(score, str)]

    @property
    def column_names(self) -> list[str]:
        names = [score if isinstance(score, str) else SIMILARITY for score in self.root]
        return [name.rpartition(":")[2] for name in names]
