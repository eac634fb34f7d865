"""Open scores as columns: framefleet's own, scores by models, scores of other plugins, users' functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from framefleet.api.clips import ClipColumn, Frames
from framefleet.api.errors import JobError
from framefleet.api.texts import did_you_mean, either
from framefleet.pipeline.guards.named_function import named_function, source_digest
from framefleet.pipeline.plugin import plugins
from framefleet.plugins.scores import measures, model_scores
from framefleet.plugins.scores.names import BY_MODEL, WITHOUT_MODEL
from framefleet.plugins.scores.section import (
    AestheticSection,
    ModelScore,
    ScoresSection,
    SimilaritySection,
)
from framefleet.plugins.scores.similarity import Similarity, open_similarity
from framefleet.plugins.scores.users_process import UsersScore

_TEXT = "text"
_score = partial(ClipColumn, section="scores", needs_record=False)


@dataclass(frozen=True, slots=True)
class _OfFrames:
    """A score that needs only frames."""

    measure: Callable[[Frames], bool | float | None]

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> bool | float | None:
        return self.measure(frames)


OWN_SCORES = {
    measure.__name__: _score(name=measure.__name__, type=kind, function=_OfFrames(measure))
    for measure, kind in (
        (measures.sharpness, pa.float64()),
        (measures.motion, pa.float64()),
        (measures.flicker, pa.float64()),
        (measures.is_black, pa.bool_()),
        (measures.is_static, pa.bool_()),
        (measures.num_torn_frames, pa.int64()),
    )
}


def open_scores(section: ScoresSection, folder: str | None = None) -> list[ClipColumn]:
    """Return the scores of a section. folder: with users' modules, besides the current folder.

    Only for trusted names, since importing a module runs it. Raises UserError for an unknown or repeated
    score.
    """
    models = [model.column for model in section.models]
    for column in models:
        if models.count(column) > 1:
            raise JobError(f"scores: two models are set for {column!r}", "remove one")
    scores = [_named(name, folder) for name in section.names]
    scores += [_of_model(model.column, _by_model(model)) for model in section.models]
    names = [score.name for score in scores]
    for name in names:
        if names.count(name) > 1:
            raise JobError(
                f"scores: two scores would have the column {name!r}",
                "rename the function, or leave one out",
            )
    return scores


_Model = Similarity | model_scores.Aesthetic | model_scores.Unsafe | model_scores.PictureText


def _of_model(name: str, model: _Model) -> ClipColumn:
    # Load models before anything computes, as libraries set torch's default dtype and draw random numbers.
    return _score(name=name, type=pa.float64(), function=model, digest=model.digest, prepare=model.load)


def _by_model(section: ModelScore) -> _Model:
    if isinstance(section, SimilaritySection):
        return open_similarity(section.similarity)
    if isinstance(section, AestheticSection):
        return model_scores.open_aesthetic(section.aesthetic, section.clip, allow_pickle=section.allow_pickle)
    return model_scores.open_unsafe(section.nsfw)


def _named(name: str, folder: str | None) -> ClipColumn:
    others = {name: place for plugin in plugins().values() for name, place in plugin.columns.items()}
    if name in (*WITHOUT_MODEL, *BY_MODEL) and name in others:
        problem = f"scores: {name!r} is a score of framefleet, and of an installed plugin"
        raise JobError(problem, f"write {others[name]}, rename the plugin's score, or uninstall it")
    if name in OWN_SCORES:
        return OWN_SCORES[name]
    if name == _TEXT:
        return _of_model(_TEXT, model_scores.open_text())
    if name in BY_MODEL:
        raise JobError(f"scores: {name} needs a model", f"write it as `{BY_MODEL[name]}`")
    if ":" not in name and name not in others:
        fix = either(did_you_mean(name, [*OWN_SCORES, *others]), "name yours as module:function")
        raise JobError(f"scores: there is no score {name!r}", fix)
    place = others.get(name, name)
    what = f"score {name!r} of a plugin," if name in others else "score"
    function = named_function(place, what, folder=folder)
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise JobError(
            f"score {name!r} does not take (frames, record)", "give it these two parameters"
        ) from None
    return _score(
        name=name if name in others else function.__name__,
        type=pa.float64(),
        function=UsersScore(place, folder),
        needs_record=True,
        digest=source_digest(function),
        module=function.__module__,
    )
