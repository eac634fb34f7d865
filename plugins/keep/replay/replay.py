"""Render a row of an output again, and compare it with its record and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from framefleet.api.clips import Clip, Media, is_model
from framefleet.api.commands import Overview
from framefleet.api.errors import FramefleetError, InputError, JobError, ModelError, not_ours, quoted, shown
from framefleet.api.models import Model, ModelSettings, Renderer, load, model_digest
from framefleet.api.outputs import Record, kept_in
from framefleet.api.texts import parse_json
from framefleet.jobs.job.job_json import ClaimedJob
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.outputs.media.media_settings import Embed
from framefleet.pipeline.recipes.second_model import open_second_models
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.audit.verdict import AUDIT
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.plugins.keep.damage import Damage, look_at_row
from framefleet.plugins.keep.replay import recorded_row
from framefleet.plugins.keep.replay.compare import Again, Compared, compare, compared_digests
from framefleet.plugins.keep.replay.given import NOTHING, Given
from framefleet.plugins.keep.replay.machines import audits_for

_UNKNOWN = "?"  # not recorded, so never reported as different
_RECIPE = "recipe source"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Replayed(Overview):
    """A row rendered again."""

    digests: tuple[tuple[str, str | None, str | None], ...]  # (name, then, now)
    differences: tuple[tuple[str, str, str], ...]  # (name, then, now), of the environment
    media: bytes  # the new file
    record: Record  # of the new file
    damages: tuple[Damage, ...]  # of the stored files
    compared: Compared

    def overview(self) -> Mapping[str, object]:
        digests = (f"{name} {'equal' if then == now else 'different'}" for name, then, now in self.digests)
        return {
            "row": self.record.row_id,
            "verdict": self.compared.verdict,
            "digests": ", ".join(digests),
            "stored files": ", ".join(f"{one.path}: {one.kind}" for one in self.damages) or None,
            "changed since": ", ".join(name for name, _, _ in self.differences) or None,
        }

    @property
    def is_equal(self) -> bool:
        """Whether frames, sound and other arrays are equal, and the stored files match the record.

        The new file may differ from the stored one, e.g. because of another codec version.
        """
        return self.compared.verdict == "bit-exact"


class Replayer:
    """Renders recorded rows again, one at a time, in this process. Keeps the last model open."""

    def __init__(self, given: Given = NOTHING) -> None:
        """given: what the caller allows, as the output is not trusted with it."""
        self._given = given
        self._settings: ModelSettings | None = None
        self._model: Model | None = None

    def replay(self, recorded: recorded_row.Recorded) -> Replayed:
        """Render a row again and compare it, as `replay` does."""
        recipe = recorded_row.recipe_of(recorded, self._given)
        audits = audits_for(recorded.output.store, self._given.audit, self._given.storage_options)
        job = recorded.claim.job
        media = media_again(job, recorded.record)
        media = replace(media, fps=recorded.record.fps or media.fps)  # whatever it came from
        steps = recorded_row.steps_again(job.model_dump(), allow_pickle=self._given.allow_pickle)
        if not steps and (recorded.record.marked_sha256 or recorded.record.marked_audio_sha256):
            which = " and ".join(recorded.claim.file_steps) or "a plugin"
            problem = f"{which} changed what is in its file, and cannot do that again"
            raise JobError(problem, "write `again` in that plugin; `verify --files` only reads files")
        second_models = open_second_models(recorded.second_models)
        for reference in filter(is_model, recorded.request.arguments.values()):
            if (second := second_models[reference["name"]]).digest != reference["digest"]:
                option = quoted("--second-model", reference["name"] + "=PLACE")
                problem = f"the second model at {second.settings.name} is not the one that rendered this row"
                raise ModelError(problem, f"give the folder of the right one: {option}")
        if self._model is None or recorded.model != self._settings:
            self._model = None  # free its memory before the next is loaded
            try:
                self._model, self._settings = load(recorded.model), recorded.model
            except ModelError as error:
                if self._given.model or self._given.models:
                    raise
                if "/" not in (name := recorded.model.path) and not Path(name).exists():
                    problem = f"its record has the name of its model, {name!r}, without the folder it is in"
                    raise ModelError(problem, "add --model PLACE") from None
                fix = f"if it has moved, add --model PLACE; else {error.fix}"
                raise ModelError(error.problem, fix) from None
        model = self._model
        check_files(recorded, model.digests, model.settings.name)
        request = check_again(recorded.request, model.spec, recipe)
        renderer = Renderer(
            model,
            Batching(max_rows=1),
            recipes={recipe.name: recipe},
            inputs=recorded.inputs,
            second_models=second_models,
            audit=Audit(every=0),
            keep=kept_in(recorded.record.extra_outputs),
        )
        clip = renderer.render_plainly(request, recorded.record.row_id)
        if not isinstance(clip, Clip):
            raise _not_rendered(recorded.record.row_id, clip.error)
        # Files contain the model's name, which may have changed since.
        now = encode_clip(replace(clip, model=recorded.record.model), media, steps.values())
        is_jobs = job.recipe == recorded.request.recipe  # only the digest of the job's recipe is stored
        digest = recorded.claim.recipe_digest if is_jobs else _UNKNOWN
        there = {**recorded.environment, _RECIPE: digest}
        here = {**parse_json(now.record.environment), _RECIPE: recipe.digest}
        differences = tuple(_differences(there, here))
        output, then = recorded.output, recorded.record
        damages = look_at_row(output, then.row_id)
        again = Again(
            record=now.record,
            media=media,
            frames=lambda: now.frames,
            content=lambda: now.content,
            extras=lambda: clip.extras.arrays,
        )
        return Replayed(
            digests=tuple(compared_digests(recorded.record, now.record)),
            differences=differences,
            media=now.content,
            record=now.record,
            damages=tuple(damages),
            compared=compare(output.store, then, again, damages=damages, changes=differences, audits=audits),
        )


def replay(output: str | Path, row_id: str, given: Given = NOTHING) -> Replayed:
    """Render one row again, in this process, and compare it with its record and its stored files.

    row_id: the row_id, its first digits, or the clip's name. given: what the output is not trusted with.
    Raises JobError if there is no such record or it is invalid, and ModelError if the model's files have
    changed.
    """
    return Replayer(given).replay(recorded_row.find_recorded(str(output), row_id, given))


def media_again(job: ClaimedJob, record: Record) -> Media:
    """Return how to encode a clip again, from job.json and its record.

    Never with NVENC, which may be missing here, and does not produce equal bytes.
    """
    encoder = None if job.media.encoder == "h264_nvenc" else job.media.encoder
    return Media(**job.media.model_dump() | {"encoder": encoder, "embed": embed_of(record)})


def embed_of(record: Record) -> Embed:
    """Return what is embedded in the recorded file. Raises JobError for a value framefleet never writes."""
    embed = record.embed or "tags"
    if embed not in get_args(Embed):
        raise not_ours(f"column 'embed' of the record of row {record.row_id}", f"it is {shown(embed)}")
    return cast(Embed, embed)


def environment_differences(then: Record, now: Record) -> tuple[tuple[str, str, str], ...]:
    """Return (name, then, now) for each part of the environment that has changed."""
    there, here = (
        recorded_row.environment_of(record).model_dump(exclude_none=True) for record in (then, now)
    )
    return tuple(_differences(there, here))


def _not_rendered(row_id: str, error: Exception) -> FramefleetError:
    """Return the error to raise if the row could not be rendered again."""
    if isinstance(error, InputError):
        return JobError(
            error.problem,
            "restore the file as it was when the row was rendered; "
            "if it is on a private network, allow its place with --root",
        )
    if isinstance(error, FramefleetError):
        return error
    failure = JobError(
        f"row {row_id} cannot be rendered again: {type(error).__name__}: {error}",
        "check the record with `framefleet verify --files`, and compare the environment",
    )
    failure.__cause__ = error
    return failure


def check_files(recorded: recorded_row.Recorded, digests: Mapping[str, str], name: str) -> None:
    """Raise ModelError if the files of the model `name` are not those that rendered the row."""
    if model_digest(digests) == recorded.record.model_digest:
        return
    changed = [file for file, _, _ in _differences(recorded.model_files, digests)]
    raise ModelError(
        f"the model at {name} is not the one that rendered this row; other files: "
        + ", ".join(changed[:5])
        + (f" and {len(changed) - 5} more" if len(changed) > 5 else ""),
        "give the folder of the right model with --model",
    )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    names = sorted({*there, *here} - {AUDIT})  # an audit says nothing about the machine
    return [
        (name, str(there.get(name, "absent")), str(here.get(name, "absent")))
        for name in names
        if there.get(name) not in (here.get(name), _UNKNOWN)
    ]
