"""Rows that `verify --fleet` renders again are rendered from the same table, with the same settings."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import pytest

import framefleet
from framefleet import JobError, Store
from framefleet.jobs.doors import Scope
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.keep.verify import verify as verify_module
from tests.jobs import prompt_rows, resolved_from, write_table
from tests.outputs import committed, write_part
from tests.rows import record

Run = tuple[Job, Collection[str], list[str]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Return the jobs that are run from now on, each with the rows to render and those of its table."""
    noted: list[Run] = []

    def render_rows(job: Job, watch: Watch, scope: Scope) -> None:
        with closing(resolve_job(job, watch, scope.table)) as resolved:
            noted.append((job, scope.only or (), row_ids_of(resolved)))

    monkeypatch.setattr(verify_module, "render_rows", render_rows)
    return noted


def row_ids_of(resolved: ResolvedJob) -> list[str]:
    rows = (row for first, batch in resolved.table.batches() for row in resolved.rows.read(first, batch))
    return [row.row_id for row in rows if isinstance(row, IdentifiedRow)]


def commit(out: Path, row_id: str, extra_outputs: str | None = None) -> None:
    changed = {"row_id": row_id, "path": clip_path(row_id, ".mp4"), "extra_outputs": extra_outputs}
    row = values_of(record(0)) | changed
    write_part(Store(str(out)), "records", RECORD_FIELDS, [row], f"r{row_id}")


def test_rows_that_were_added_are_in_its_table(runs: list[Run], tmp_path: Path) -> None:
    job, out = committed(tmp_path, 2), tmp_path / "out"
    more = [{name: row[name] for name in ("prompt", "seed")} for row in prompt_rows(3)[2:]]
    framefleet.add(job, write_table(tmp_path / "more.parquet", more))
    with resolved_from(job) as resolved:
        *_, added = row_ids_of(resolved)
    commit(out, added)
    framefleet.verify(out, fleet_job=job, row_ids=[added])
    ((_, chosen, row_ids),) = runs
    assert {*chosen} == {added} and added in row_ids and len(row_ids) == 3
    assert not Store(str(out)).list(".verify")


def test_each_row_is_rendered_with_what_was_stored_of_its_steps(runs: list[Run], tmp_path: Path) -> None:
    job, out = committed(tmp_path, 2), tmp_path / "out"
    kept = {"latents": [0, -1], "log_probs": False}
    commit(out, "a" * 32, canonical_json({"kept": kept}))
    commit(out, "b" * 32)
    commit(out, "c" * 32, canonical_json({"kept": kept | {"latents": "all"}}))
    framefleet.verify(out, fleet_job=job, row_ids=[letter * 32 for letter in "abc"])
    assert [(of.keep.latents, of.keep.log_probs, *chosen) for of, chosen, _ in runs] == [
        ([0, -1], False, "a" * 32),
        ([], False, "b" * 32),
        ("all", False, "c" * 32),
    ]


def test_the_job_must_be_that_of_the_output(tmp_path: Path) -> None:
    job = committed(tmp_path, 2)
    with pytest.raises(JobError, match=r"the output of this job is .*/other") as refused:
        framefleet.verify(tmp_path / "out", fleet_job=job, sets=[f"output={tmp_path / 'other'}"])
    assert f"--set output={tmp_path / 'out'}" in refused.value.fix
