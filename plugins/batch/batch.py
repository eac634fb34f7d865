"""Render a batch file to an output, and write its files of results and errors.

    in.jsonl -> a table in the output -> render -> records, failures -> out.jsonl, out.errors.jsonl

The table has a row per line, and is the same for the same lines, so that another run continues.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from framefleet.api.errors import JobError, TableError
from framefleet.api.jobs import Job, Progress, below, load_job, open_models, store_of_job
from framefleet.api.models import PipelineSpec
from framefleet.api.outputs import OutputFiles, Store
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.outputs.layout import TABLES
from framefleet.plugins.batch.lines import Line, read_lines
from framefleet.plugins.batch.results import (
    CUSTOM_ID,
    Batch,
    BatchSummary,
    lines_left,
    listing_refusals,
    write_refusals,
    write_results,
)
from framefleet.plugins.batch.words import VIDEOS_URL, Refusal, row_of

_GONE = Refusal(
    code="forgotten",
    message="its row was deleted by `framefleet forget`; delete the line, too",
    status_code=410,
)
_DATA = re.compile(r"data:image/(png|jpeg|webp);base64,(.*)", re.DOTALL)


def batch(
    file: str | Path,
    results: str | Path,
    *,
    errors: str | Path | None = None,
    model: str | None = None,
    engine: str | None = None,
    output: str | None = None,
    sets: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> BatchSummary:
    """Render the requests of a batch file of OpenAI's batch API; return how many lines have results.

    file: lines of {custom_id, method, url, body} for /v1/videos, /v1/images/generations and
    /v1/images/edits. results: file to write, with a line for each rendered request, in the order of `file`;
    errors: file for the others, by default NAME.errors.jsonl. model: overrides the model in the lines.
    engine: addresses of servers that render instead of framefleet, separated by commas, e.g.
    "http://gpu-1:8000/v1". output: for clips and records, by default the folder NAME next to the results.
    sets: keys of the job, e.g. "fleet.workers=2". The same call continues after an interruption. Raises
    FramefleetError.
    """
    from framefleet.jobs.render.render import render

    opened = open_batch(
        Path(file),
        Path(results),
        errors=Path(errors) if errors else None,
        model=model,
        engine=engine,
        output=output,
        sets=sets,
    )
    with listing_refusals(opened):
        render(opened.job, on_progress=on_progress)
    return write_results(opened)


def open_batch(
    file: Path,
    results: Path,
    *,
    errors: Path | None,
    model: str | None,
    engine: str | None,
    output: str | None,
    sets: Sequence[str],
) -> Batch:
    """Return a batch whose table is in its output. Raises as `batch` does."""
    errors, output = errors or results.with_suffix(".errors.jsonl"), output or str(results.with_suffix(""))
    _check_places(file, results, errors, Path(output))
    lines = [*read_lines(file)]
    sound = ((line.url, line.body) for line in lines if line.body is not None)
    if (first := next(sound, None)) is None:
        raise _nothing_in(file, lines, errors)
    named = first[1].get("model")
    if not model and not (isinstance(named, str) and named):
        raise TableError(f"{file}: the first request names no model", "give --model")
    renders: dict[str, Any] = {"model": model or named}
    if engine:
        kind = "videos_api" if first[0] == VIDEOS_URL else "images_api"
        urls = [url.strip() for url in engine.split(",")]
        renders = {"engine": {"type": kind, "urls": urls, "model": model or named}}
    values: dict[str, Any] = {
        **renders,
        "table": str(file),
        "output": output,
        "on_invalid": "skip",
    }
    job = load_job(values, sets, is_run=True)
    with LIBRARY_PROCESS.use():
        (spec,) = [opened.spec for opened in open_models(job).values()]
    store, rows = store_of_job(job), list[dict[str, Any]]()
    for at, line in enumerate(lines):
        try:
            rows.append(_row(line, spec, job, store, same_model=None if model else named))
        except Refusal as refusal:
            lines[at] = replace(line, refusal=refusal)
    if not rows:
        raise _nothing_in(file, lines, errors)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    table = f"{TABLES}/{sha256(text).hexdigest()[:32]}.jsonl"
    if not store.exists(table):
        store.write(table, text)
    inputs = job.inputs.model_copy(update={"base": job.inputs.base or str(file.absolute().parent)})
    job = job.model_copy(update={"table": below(job, table), "inputs": inputs})
    if forgotten := OutputFiles(store).forgotten():
        left = lines_left(job, forgotten) if store.read(table) else ()
        lines = [
            one if one.refusal or one.custom_id in left else replace(one, refusal=_GONE) for one in lines
        ]
        if all(line.refusal for line in lines):
            raise _nothing_in(file, lines, errors)
    return Batch(job=job, lines=lines, results=results, errors=errors)


def _check_places(*places: Path) -> None:
    """Raise JobError for files that would be written over each other, or could not be written at the end."""
    names = [os.path.realpath(place) for place in places]
    if twice := next((name for name in names if names.count(name) > 1), None):
        problem = f"{twice} would be two of: requests, results, errors and the folder of clips"
        raise JobError(problem, "give each a name of its own, e.g. -o results.jsonl")
    for place in places[1:3]:
        if ":/" in str(place) or place.is_dir():
            raise JobError(f"{place} is no file of this machine", "write results and errors to files here")


def _nothing_in(file: Path, lines: Sequence[Line], errors: Path) -> TableError:
    """Return the error for a file whose lines are all refused; list them in the file of errors."""
    write_refusals(lines, errors, {})
    refused = (f"line {line.number:,}: {line.refusal.message}" for line in lines if line.refusal)
    example = next(refused, "it is empty")
    return TableError(f"{file} has no request that can be rendered, e.g. {example}", "correct its lines")


def _row(line: Line, spec: PipelineSpec, job: Job, store: Store, *, same_model: Any) -> dict[str, Any]:
    """Return the table's row for a line. same_model: the model that all lines must name."""
    if line.refusal:
        raise line.refusal
    assert line.body is not None, "else it was refused"
    if same_model is not None and line.body.get("model") not in (None, same_model):
        raise Refusal(
            code="mismatched_model",
            message=f"model is {line.body['model']!r}, but {same_model!r} in the first line; all lines of a "
            "file must have the same model",
            name="model",
        )
    columns = row_of(line.body, line.url, spec)
    if (found := _DATA.fullmatch(str(columns.get("image", "")))) is not None:
        columns["image"] = below(job, _stored_image(store, *found.groups()))
    return columns | {CUSTOM_ID: line.custom_id}


def _stored_image(store: Store, kind: str, text: str) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:  # so too for a character that is not ASCII
        raise Refusal(code="invalid_value", message="image is not valid base64", name="image") from None
    path = f"{TABLES}/{sha256(content).hexdigest()[:32]}.{kind}"
    if not store.exists(path):
        store.write(path, content)
    return path
