"""From an output and a row_id to the same row rendered once more, and what of it is equal."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from framefleet.cluster.messages import Assignment, WorkerSetup
from framefleet.cluster.write import clip_path, write_clip
from framefleet.jobs.claim import read_claim
from framefleet.pipeline.clips import Clip, Outcome
from framefleet.pipeline.errors import InputError, JobError, ModelError
from framefleet.pipeline.fused.forwards import Batching
from framefleet.pipeline.identity import is_input
from framefleet.pipeline.inputs.access import Inputs
from framefleet.pipeline.json_text import parse_json
from framefleet.pipeline.loras.asked import Lora, digests_in
from framefleet.pipeline.model import Model, ModelSettings, load
from framefleet.pipeline.options.schema import recorded_options
from framefleet.pipeline.outputs.media import Media
from framefleet.pipeline.outputs.parts import find_record
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.recipes.recipe import Recipe, find_recipe
from framefleet.pipeline.renderer import Renderer
from framefleet.pipeline.request import Request

UNKNOWN = "?"  # not recorded, so never said to differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One committed row, as its record and job.json have it."""

    row_id: str
    record: Mapping[str, Any]
    claim: Mapping[str, Any]
    request: Request
    model: ModelSettings

    @property
    def environment(self) -> dict[str, Any]:
        found: dict[str, Any] = parse_json(self.record["environment"])
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A row rendered again.

    digests: (name, then, now). differences: the same, of what the environment has become. media: the file.
    """

    digests: tuple[tuple[str, str, str], ...]
    differences: tuple[tuple[str, str, str], ...]
    media: bytes

    @property
    def is_equal(self) -> bool:
        """Whether the frames are; the file may differ by its codec's version."""
        _, then, now = self.digests[0]
        return then == now


def replay(
    output: str,
    row_id: str,
    *,
    model: str | None = None,
    loras: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Replayed:
    """Render one row again, in this process, and compare it with its record.

    model, loras: where the model is now, and LoRAs by name, if not where the record and job.json say.
    storage_options: as in the job. Raises JobError when there is no such record, and ModelError when files
    are not those of the record.
    """
    recorded = find_recorded(output, row_id, model=model, loras=loras, storage_options=storage_options)
    recipe = find_recipe(recorded.request.recipe)
    loaded = load(recorded.model)
    _check_files(recorded, loaded)
    batching = Batching(max_rows=1)
    inputs = _inputs_of(recorded, storage_options)
    renderer = Renderer(loaded, batching, recipes={recipe.name: recipe}, inputs=inputs)
    renderer.submit(recorded.request, row_id)
    outcomes: list[Outcome] = []
    while not outcomes:
        outcomes = renderer.step()
    if not isinstance(outcomes[0], Clip):
        error = outcomes[0].error
        if isinstance(error, InputError):  # nothing was rendered: not "other frames"
            raise JobError(error.problem, "put the file back as it was when the row was rendered")
        raise error
    now, media = _written(outcomes[0], loaded, recorded, recipe)
    there = recorded.environment | {"recipe source": _recipe_digest(recorded)}
    here = dict(outcomes[0].environment) | {"recipe source": recipe.digest}
    return Replayed(
        digests=tuple((name, recorded.record[name], now[name]) for name in ("frames_sha256", "media_sha256")),
        differences=tuple(_differences(there, here)),
        media=media,
    )


def find_recorded(
    output: str,
    row_id: str,
    *,
    model: str | None = None,
    loras: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Recorded:
    """Return what is known about a committed row. Raises JobError when there is no record of it."""
    store = Store(output, storage_options)
    try:
        claim = read_claim(store)
    except FileNotFoundError:
        raise JobError(f"{store.url_of('')} is not an output: it has no job.json", "check the path") from None
    record = find_record(store, row_id)
    environment = parse_json(record["environment"])
    arguments = parse_json(record["arguments"])
    return Recorded(
        row_id=row_id,
        record=record,
        claim=claim,
        request=Request(
            arguments=arguments,
            seed=record["seed"],
            scheduler=record["scheduler"],
            recipe=record["recipe"],
            fps=record["fps"],
        ),
        model=ModelSettings(
            path=model or record["model"],
            allow_pickle=claim["job"].get("model", {}).get("allow_pickle", False),
            dtype=environment["dtype"],
            device=environment["device"],
            threads=environment["threads"],
            options=recorded_options(parse_json(record["numerics"]), environment),
            storage_options=dict(storage_options or {}),
            loras={
                name: _lora(name, sha256, claim["job"].get("loras", {}), loras or {})
                for name, sha256 in digests_in(arguments).items()
            },
        ),
    )


def _inputs_of(recorded: Recorded, storage_options: Mapping[str, Any] | None) -> Inputs:
    """Return what may read the row's own images and videos, wherever the record says they are."""
    inputs = [value["uri"] for value in recorded.request.arguments.values() if is_input(value)]
    return Inputs([uri.rpartition("/")[0] or "/" for uri in inputs], storage_options)


def _lora(name: str, sha256: str, claimed: Mapping[str, Any], moved: Mapping[str, str]) -> Lora:
    """Return a LoRA of the row, from where job.json or the caller says, with the record's content."""
    if name not in claimed:
        raise JobError(
            f"job.json does not name the LoRA {name!r} of this row", "take job.json of this output"
        )
    lora = Lora(**claimed[name] | {"sha256": sha256})
    return replace(lora, path=moved[name], revision=None, file=None) if name in moved else lora


def _check_files(recorded: Recorded, loaded: Model) -> None:
    if loaded.digest == recorded.record["model_digest"]:
        return
    there = recorded.claim.get("model_files", {})
    changed = [name for name, _, _ in _differences(there, loaded.digests)]
    raise ModelError(
        f"the model at {loaded.settings.name} is not the one that rendered this row; other files: "
        + ", ".join(changed[:5])
        + (f" and {len(changed) - 5} more" if len(changed) > 5 else ""),
        "give the folder of the model that did, as --model",
    )


def _recipe_digest(recorded: Recorded) -> str | None:
    """Return the digest of the recipe's source then; that of a row's own recipe is not kept."""
    is_jobs = recorded.claim["job"].get("recipe") == recorded.request.recipe
    digest: str | None = recorded.claim.get("recipe_digest") if is_jobs else UNKNOWN
    return digest


def _written(clip: Clip, model: Model, recorded: Recorded, recipe: Recipe) -> tuple[dict[str, str], bytes]:
    """Write the clip as a worker would, into a scratch folder; return its digests and its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        setup = WorkerSetup(
            model=recorded.model,
            batching=Batching(max_rows=1),
            media=Media(**recorded.claim["job"]["media"]),
            store=Store(folder),
            recipes={recipe.name: recipe},
            inputs=_inputs_of(recorded, None),
        )
        assignment = Assignment(row_id=clip.row_id, request=clip.request, attempt=1)
        record = write_clip(clip, assignment, datetime.now(UTC), model, setup)
        media = setup.store.read(clip_path(clip.row_id, setup.media.suffix))
    return {"frames_sha256": record.frames_sha256, "media_sha256": record.media_sha256}, media


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    names = sorted({*there, *here})
    return [
        (name, str(there.get(name, "absent")), str(here.get(name, "absent")))
        for name in names
        if there.get(name) not in (here.get(name), UNKNOWN)
    ]
