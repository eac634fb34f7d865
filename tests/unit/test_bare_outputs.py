"""Whoever looks at an output in which nothing happened gets an answer, and at none a refusal."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import Output, Progress, StatusServer, Store
from framefleet.cluster.driver.progress import AuditFigures
from framefleet.pipeline.metrics import METRICS
from framefleet.pipeline.outputs.parts.records import ROW_FIELDS, failure_schema, values_of
from tests.commands import command
from tests.jobs import write_job
from tests.outputs import write_driver, write_part
from tests.rows import failure
from tests.small_output import rendered


def killed_early(store: Store, *, total: int = 0) -> None:
    """Leave what a driver says that was killed before a worker did anything: zeros."""
    figures = {metric.key("x" if metric.label else ""): 0.0 for metric in METRICS.values()}
    figures |= {f"worker_seconds/{cause}": 0.0 for cause in ("denoise", "load", "idle")}
    rows = {"total": total, "before": 0, "done": 0, "failed": 0, "in_flight": 0}
    speed = {"elapsed_s": 0.0, "rows_per_s": 0.0, "eta_s": 0.0, "mean_batch": 0.0}
    nothing: dict[str, Any] = {**rows, **speed, "workers": (), "audits": AuditFigures()}
    write_driver(store, progress=Progress(**nothing, figures=figures), process_started="1", sealed={})


def with_rows(store: Store) -> None:
    killed_early(store, total=3)
    rows = [{"row_index": number, "row_id": f"{number:032x}"} for number in range(3)]
    write_part(store, "rows", ROW_FIELDS, rows)


def with_failures_alone(store: Store) -> None:
    with_rows(store)
    failed = (failure(row_id=f"{number:032x}", row_indices=(number,)) for number in range(3))
    write_part(store, "failures", failure_schema(pa.schema([])), map(values_of, failed))


def with_parts_without_rows(store: Store) -> None:
    killed_early(store)
    rendered(store, 1)
    (path,) = Path(store.url_of("records")).glob("*.parquet")
    empty = pq.read_table(path).slice(0, 0)
    path.unlink()
    pq.write_table(empty, path.with_name("part-none.parquet"))


def with_seconds_of_zero(store: Store) -> None:
    killed_early(store, total=2)
    rendered(store, 2)


OUTPUTS: dict[str, Callable[[Store], None]] = {
    "killed early": killed_early,
    "rows alone": with_rows,
    "failures alone": with_failures_alone,
    "parts without rows": with_parts_without_rows,
    "a driver that counted nothing": with_seconds_of_zero,
}
FORMATS = ("hf", "parquet", "webdataset", "parquet --columns all")
COMMANDS = [
    *("status", "status --json", "report", "report --price 2", "failures", "logs", "gallery", "sheet"),
    *("score --scores sharpness", "verify --files", "repair --dry-run", "compact", "pack {to}"),
    *(f"export {{to}} --format {name}" for name in FORMATS),
]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("asked", COMMANDS)
def test_no_command_that_looks_at_it_is_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asked: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where `sheet` draws
    store = Store(str(tmp_path / "out"))
    OUTPUTS[name](store)
    verb, *options = asked.format(to=tmp_path / "to").split()
    result = command(verb, tmp_path / "out", *options)
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exit_code != 2 or "hint: " in result.stderr
    assert "Usage" not in result.stderr, result.stderr


@pytest.mark.parametrize("name", OUTPUTS)
def test_its_status_is_served(tmp_path: Path, name: str) -> None:
    store = Store(str(tmp_path / "out"))
    OUTPUTS[name](store)
    with StatusServer(Output(store)) as server, urlopen(server.url) as answer:
        assert answer.status == 200


READERS = [
    ["gallery"],
    ["gallery", "--previews"],
    ["sheet"],
    ["report"],
    ["status"],
    ["failures"],
    ["verify"],
    ["verify", "--files"],
    ["repair"],
    ["repair", "--dry-run"],
    ["retry"],
    ["score", "--scores", "motion"],
    ["export", "exported", "--format", "webdataset"],
    ["pack"],
    ["replay", "0123"],
    ["render"],
    ["plan"],
]


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.png").write_bytes(b"a cat")
    name, *options = arguments
    for place in ("pictures", "nowhere"):
        assert "has no records" not in command(name, place, *options, exits=2).output
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "pictures",
        "pictures/cat.png",
    ]


@pytest.mark.parametrize(
    "arguments", [["repair"], ["repair", "--dry-run"], ["judge"], ["prompts"]], ids=" ".join
)
def test_a_job_that_has_not_run_has_no_output_afterwards_either(arguments: list[str], tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", {"table": "t.csv", "output": "out", "model": "m"})
    name, *options = arguments
    command(name, job, *options, exits=2)
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


# What functions of an output need besides it.
MORE = {"export": {"to": "to", "format": "hf"}, "grid": {"to": "to.mp4"}, "sheet": {"to": "to.png"}}
MORE |= {"replay": {"row_id": "0123"}, "replay_script": {"row_id": "0123"}, "score": {"scores": ["motion"]}}


def test_functions_take_the_place_of_an_output_as_a_path(tmp_path: Path) -> None:
    functions = {name: getattr(framefleet, name) for name in framefleet.__all__}
    named = [name for name, one in functions.items() if inspect.isfunction(one)]
    of_outputs = [
        name for name in named if [*inspect.signature(functions[name]).parameters][:1] == ["output"]
    ]
    of_outputs.remove("logs")  # of a submission, by a job server
    assert len(of_outputs) > 15
    for name in of_outputs:
        with pytest.raises(framefleet.JobError, match=r"nowhere does not exist|no job"):
            result = functions[name](tmp_path / "nowhere", **MORE.get(name, {}))
            list(result) if inspect.isgenerator(result) else None
