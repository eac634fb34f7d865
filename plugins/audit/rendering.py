"""Render plain calls of a model for rows of an output, as a job in audits/ of the output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from framefleet.api.clips import each_input, input_cell, inputs_in
from framefleet.api.commands import Watch
from framefleet.api.errors import JobError, count_text
from framefleet.api.jobs import Job, store_of_job
from framefleet.api.outputs import Output, told_arguments
from framefleet.jobs.render.python_table import stored_rows
from framefleet.jobs.render.render import render_job
from framefleet.plugins.audit.pairs import AskedRow, arguments_asked

AUDITED = "audited_row_id"  # column of records: the row that this plain call repeats
_LOSSLESS = {"format": "mkv", "encoder": None, "crf": None, "previews": False}


def render_plainly(job: Job, rows: Iterable[AskedRow], place: str, watch: Watch) -> Output:
    """Render rows one by one, in a lossless format; return the output at `place`.

    job: with the model and the fleet.
    """
    rows = [row for row in rows if not _needs_more(row)]
    if not rows:
        raise JobError(
            "no chosen row can be rendered by a model alone", "compare with an output: --against OUTPUT"
        )
    plain = {
        "output": place,
        "batching": job.batching.model_copy(update={"max_rows": 1}),
        "audit": job.audit.model_copy(update=dict.fromkeys(("at_most", "share", "against")) | {"every": 0}),
        "media": job.media.model_copy(update=_LOSSLESS),
        "on_invalid": "skip",
        "inputs": job.inputs.model_copy(update={"fit": _fit_of(rows)}),
    }
    with stored_rows(job.model_copy(update=plain), [*map(_cells, rows)]) as loaded:
        watch.say(f"plain calls of {count_text(len(rows), 'row')}: {loaded.output}")
        render_job(loaded, watch)
        return Output(store_of_job(loaded))


def _needs_more(row: AskedRow) -> bool:
    """Whether a row needs a recipe, a LoRA or a second model of its job."""
    values = told_arguments(row).values()
    return ":" in row["recipe"] or any(isinstance(one, dict) and not inputs_in(one) for one in values)


def _fit_of(rows: Iterable[AskedRow]) -> str:
    pictures = [one for row in rows for value in told_arguments(row).values() for one in inputs_in(value)]
    fits = {str(one.get("fit", "stretch")) for one in pictures}
    return "pad" if "pad" in fits else "crop" if fits & {"area", "crop"} else "stretch"


def _cells(row: AskedRow) -> dict[str, Any]:
    arguments = arguments_asked(row)
    cells = {name: each_input(value, input_cell) for name, value in arguments.items()}
    return {**cells, "seed": row["seed"], "recipe": row["recipe"], AUDITED: row["row_id"]}
