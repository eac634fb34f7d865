"""Finished clips that an earlier run could not commit: they get records now, and are not rendered again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from framefleet.cluster.driver.recall import noted_apart, path_of
from framefleet.cluster.worker.messages import StoredRow, WorkerSetup
from framefleet.pipeline.outputs.clip_step import StepValues, suffix_of
from framefleet.pipeline.outputs.parts.pending_clips import FinishedClip, Intent, finished_clips
from framefleet.pipeline.outputs.parts.records import public_arguments
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.request import Request


@dataclass(slots=True)
class Adoption:
    """Clips that an earlier run finished, by row_id. apart: kinds of which only plain calls are adopted.

    models: of the job, each with what records call it, and its digest.
    """

    finished: dict[str, FinishedClip] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)
    models: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def take(self, row_id: str, request: Request) -> StoredRow | None:
        """Return a row's clip, once. What the request says comes from the request: a note is anybody's."""
        found = self.finished.pop(row_id, None)
        if found is None or (found.was_batched and self.is_apart(kind_of(request))):
            return None
        name, digest = self.models[request.model]
        if found.record.model_digest != digest:
            return None
        record = replace(
            found.record,
            arguments=public_arguments(request.arguments),
            seed=request.seed,
            scheduler=request.scheduler,
            recipe=request.recipe,
            model=name,
            model_name=request.model or None,
        )
        values = {"": StepValues(values=found.values)}
        return StoredRow(record=record, was_batched=found.was_batched, values=values)

    def is_apart(self, kind: str) -> bool:
        """Tell whether rows of this kind were found to differ from plain calls, in this run or before."""
        return bool(self.apart) and path_of(kind) in self.apart

    def refuse(self, kind: str) -> None:
        """From now on, adopt no clip of this kind that was batched."""
        self.apart.add(path_of(kind))


def find_adoptable(
    setup: WorkerSetup, intents: Iterable[Intent], models: Mapping[str, tuple[str, str]]
) -> Adoption:
    """Return those of these clips that are complete and of the job's models. Reads their bytes.

    setup: of any worker. intents: of rows of the table that have no record. models: as of `Adoption`.
    """
    digests = {digest for _, digest in models.values()}
    finished = finished_clips(setup.store, intents, suffix_of(setup.media, setup.steps.values()))
    # Those that say what a file holds. A value of another kind may come later, and is null.
    columns = {name for step in setup.steps.values() if step.changes_file for name in step.columns.names}
    ours = (
        found for found in finished if found.record.model_digest in digests and columns <= found.values.keys()
    )
    return Adoption({found.record.row_id: found for found in ours}, noted_apart(setup.store), models)
