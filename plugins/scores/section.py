"""The section `scores` of a job file. Light to import, since every job file is read with it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from framefleet.api.sections import Key, ListSection, Section
from framefleet.plugins.scores.names import SIMILARITY, WITHOUT_MODEL

_Place = Annotated[str, Field(min_length=1)]


class SimilaritySection(Section):
    """A score: how well a clip matches its prompt."""

    column: ClassVar[str] = SIMILARITY

    similarity: _Place
    """Folder of a CLIP model, on every worker's machine."""


class AestheticSection(Section):
    """A score: how pleasing a clip's pictures are."""

    column: ClassVar[str] = "aesthetic"

    aesthetic: _Place
    """File with the linear layers of LAION's aesthetic predictor, on every worker's machine."""
    clip: _Place
    """Folder of the CLIP model that they were trained with, ViT-L/14."""
    allow_pickle: bool = False
    """Allow a file that is not safetensors, as LAION publishes them; only its tensors are read."""


class NsfwSection(Section):
    """A score: how likely a clip is for adults only."""

    column: ClassVar[str] = "nsfw"

    nsfw: _Place
    """Folder of an image classifier of transformers, on every worker's machine."""


ModelScore = SimilaritySection | AestheticSection | NsfwSection


class ScoresSection(ListSection[list[str | ModelScore]]):
    """Scores to measure for every clip in the background, as columns of records: sharpness, motion, flicker,
    is_black, is_static, num_torn_frames, text, {similarity: CLIP_FOLDER}, {nsfw: CLASSIFIER_FOLDER},
    {aesthetic: FILE, clip: CLIP_FOLDER}, or yours as module:function."""

    root: list[str | ModelScore] = Field(default_factory=list)
    paths: ClassVar[tuple[Key, ...]] = tuple(("*", key) for key in (SIMILARITY, "aesthetic", "clip", "nsfw"))

    @property
    def names(self) -> list[str]:
        return [score for score in self.root if isinstance(score, str)]

    @property
    def models(self) -> list[ModelScore]:
        """The scores that use a model in a folder."""
        return [score for score in self.root if not isinstance(score, str)]

    @property
    def for_choice(self) -> ScoresSection:
        return self or ScoresSection([name for name in WITHOUT_MODEL if name != "text"])

    @property
    def column_names(self) -> list[str]:
        names = [score if isinstance(score, str) else score.column for score in self.root]
        return [name.rpartition(":")[2] for name in names]
