"""From an output and a row_id to the same row rendered once more, and what of it is equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.jobs.replay.record_values import environment_of
from framefleet.jobs.replay.recorded_row import NOTHING, Given, Recorded, find_recorded, recipe_of
from framefleet.pipeline.errors import FramefleetError, InputError, JobError, ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.clips import Clip, Outcome
from framefleet.pipeline.outputs.damage import Damage, look_at
from framefleet.pipeline.outputs.encode_clip import EncodedClip, encode_clip
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import Record, values_of
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.second_model import SecondModel, open_second_models
from framefleet.pipeline.render.audit.settings import Audit
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.renderer import Renderer
from framefleet.pipeline.request import is_model
from framefleet.pipeline.rows.tables.checked_again import check_again

_UNKNOWN = "?"  # not recorded, so never said to differ
_RECIPE = "recipe source"
_FILE = "media_sha256"
_TEXT = "extra_outputs"
_LATER = ("audio_sha256", _TEXT, "extra_outputs_sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A row rendered again.

    digests: (name, then, now), of what there is. differences: the same, of what the environment has become.
    media: the file that it gives now, and its record. damages: of the files that are stored.
    """

    digests: tuple[tuple[str, str | None, str | None], ...]
    differences: tuple[tuple[str, str, str], ...]
    media: bytes
    record: Record
    damages: tuple[Damage, ...]

    @property
    def is_equal(self) -> bool:
        """Whether frames, sound and other arrays are, and the stored files those of the record.

        A new file may differ from the stored one by its codec's version.
        """
        return not self.damages and all(then == now for name, then, now in self.digests if name != _FILE)


class Replayer:
    """Renders recorded rows again, one after the other, in this process; keeps the model of the last."""

    def __init__(self, given: Given = NOTHING) -> None:
        """given: what the output is not trusted with."""
        self._given = given
        self._settings: ModelSettings | None = None
        self._model: Model | None = None

    def replay(self, recorded: Recorded) -> Replayed:
        """Do what `replay` promises."""
        recipe = recipe_of(recorded, self._given)
        now = self._render(recorded, recipe)
        there = {**recorded.environment, _RECIPE: _recipe_digest(recorded)}
        here = {**parse_json(now.record.environment), _RECIPE: recipe.digest}
        _, damages = look_at(recorded.store, values_of(recorded.record))
        return Replayed(
            digests=tuple(compared_digests(recorded.record, now.record)),
            differences=tuple(_differences(there, here)),
            media=now.content,
            record=now.record,
            damages=tuple(damages),
        )

    def _render(self, recorded: Recorded, recipe: Recipe) -> EncodedClip:
        second_models = open_second_models(recorded.second_models)
        _check_second_models(recorded, second_models)
        model = self._loaded(recorded.model)
        check_files(recorded, model.digests, model.settings.name)
        request = check_again(recorded.request, model.spec, recipe)
        renderer = Renderer(
            model,
            Batching(max_rows=1),
            recipes={recipe.name: recipe},
            inputs=recorded.inputs,
            second_models=second_models,
            audit=Audit(every=0),
        )
        row_id = recorded.record.row_id
        renderer.submit(request, row_id)
        outcomes: list[Outcome] = []
        while not outcomes:
            outcomes = renderer.step()
        if not isinstance(outcomes[0], Clip):
            raise _not_rendered(row_id, outcomes[0].error)
        # Neither NVENC's nor signed: no equal bytes are to be expected of these, nor that they can be made.
        given = recorded.claim.job.media
        encoder = None if given.encoder == "h264_nvenc" else given.encoder
        media = Media(**given.model_dump() | {"encoder": encoder, "c2pa": None})
        return encode_clip(outcomes[0], media)

    def _loaded(self, settings: ModelSettings) -> Model:
        if self._model is None or settings != self._settings:
            self._model = None  # before the next takes its memory
            self._model, self._settings = load(settings), settings
        return self._model


def replay(output: str, row_id: str, given: Given = NOTHING) -> Replayed:
    """Render one row again, in this process, and compare it with its record, and that with what is stored.

    given: what the output is not trusted with. Raises JobError when there is no such record, or it is not one
    that a row could have, and ModelError when files are not those of the record.
    """
    return Replayer(given).replay(find_recorded(output, row_id, given))


def compared_digests(then: Record, now: Record) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the digests that either has; nothing is said of sound that no earlier version kept."""
    is_earlier = then.frames_format is None and then.frames_sha256 is not None
    file = () if then.media_encoder else (_FILE,)
    for name in ("frames_sha256", *(() if is_earlier else _LATER), *file):
        values = [getattr(record, name) for record in (then, now)]
        if name == _TEXT:  # any text, of a record that may be anybody's
            values = [text and hashlib.sha256(text.encode()).hexdigest() for text in values]
        if values != [None, None]:
            yield name, values[0], values[1]


def environment_differences(then: Record, now: Record) -> tuple[tuple[str, str, str], ...]:
    """Return (name, then, now) of what of the environment has become another."""
    there, here = (environment_of(record).model_dump(exclude_none=True) for record in (then, now))
    return tuple(_differences(there, here))


def _not_rendered(row_id: str, error: Exception) -> FramefleetError:
    """Return what is said when nothing was rendered, which is not "other frames"."""
    if isinstance(error, InputError):
        return JobError(
            error.problem,
            "put the file back as it was when the row was rendered; "
            "where it is on a private network, give its place as --root",
        )
    if isinstance(error, FramefleetError):
        return error
    said = JobError(
        f"row {row_id} cannot be rendered again: {type(error).__name__}: {error}",
        "see whether its record is as it was written, and the environment what it was",
    )
    said.__cause__ = error
    return said


def _check_second_models(recorded: Recorded, found: Mapping[str, SecondModel]) -> None:
    for named in filter(is_model, recorded.request.arguments.values()):
        if (model := found[named["name"]]).digest != named["digest"]:
            raise ModelError(
                f"the second model at {model.settings.name} is not the one that rendered this row",
                f"give the folder of the model that did, as --second-model {named['name']}=PLACE",
            )


def check_files(recorded: Recorded, digests: Mapping[str, str], name: str) -> None:
    """Raise ModelError where the files of the model called `name` are not those that rendered the row."""
    if model_digest(digests) == recorded.record.model_digest:
        return
    changed = [file for file, _, _ in _differences(recorded.claim.model_files, digests)]
    raise ModelError(
        f"the model at {name} is not the one that rendered this row; other files: "
        + ", ".join(changed[:5])
        + (f" and {len(changed) - 5} more" if len(changed) > 5 else ""),
        "give the folder of the model that did, as --model",
    )


def _recipe_digest(recorded: Recorded) -> str | None:
    """Return the digest of the recipe's source then; that of a row's own recipe is not kept."""
    is_jobs = recorded.claim.job.recipe == recorded.request.recipe
    return recorded.claim.recipe_digest if is_jobs else _UNKNOWN


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    names = sorted({*there, *here})
    return [
        (name, str(there.get(name, "absent")), str(here.get(name, "absent")))
        for name in names
        if there.get(name) not in (here.get(name), _UNKNOWN)
    ]
