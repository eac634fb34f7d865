"""`size`, `seconds` and `n` mean what OpenAI's API means, in cells and in defaults; and are the same rows."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import JobError, Request, TableError, UserError
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.repeated_table import repeated
from framefleet.pipeline.rows.tables.request_checks import checked
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, Finder, InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from tests.configs import SD, WAN, write_model
from tests.jobs import job_values, resolved_from

NAMES = ("width", "height", "num_frames")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PipelineSpec]:
    folder = tmp_path_factory.mktemp("models")
    paths = {"wan": write_model(folder / "wan", "WanPipeline", WAN)}
    paths["sd"] = write_model(folder / "sd", "StableDiffusionPipeline", SD)
    return {name: inspect_model(path) for name, path in paths.items()}


def row_of(spec: PipelineSpec, cells: dict[str, Any], **job: Any) -> CheckedRow | InvalidRow:
    batch = pa.RecordBatch.from_pylist([{"prompt": "a", **cells}])
    (row,) = plan_rows(batch.schema, spec, **job).rows(0, batch)
    return row


@pytest.mark.parametrize(
    ("cells", "job", "means"),
    [
        ({"size": "832x480"}, {}, (832, 480, 81)),
        ({"size": " 64 * 32 "}, {}, (64, 32, 81)),
        ({"size": "auto"}, {}, (832, 480, 81)),
        ({"size": "auto"}, {"defaults": {"size": "64x32"}}, (832, 480, 81)),
        ({"size": "auto", "height": 48}, {"defaults": {"size": "64x32"}}, (832, 48, 81)),
        ({"size": "auto"}, {"overrides": {"size": "64x32"}}, (64, 32, 81)),
        ({"size": "64x32", "height": 32}, {}, (64, 32, 81)),
        ({"size": "64x32"}, {"overrides": {"height": 48}}, (64, 48, 81)),
        ({"height": 48}, {"defaults": {"size": "64x32"}}, (64, 48, 81)),
        ({"size": "128x128"}, {"overrides": {"size": "64x32"}}, (64, 32, 81)),
        ({"seconds": "5"}, {}, (832, 480, 81)),  # 80 at Wan's 16 frames a second; it takes 4k + 1
        ({"seconds": 2.0, "fps": 8}, {}, (832, 480, 17)),
        ({"seconds": 2.0}, {"fps": 24.0}, (832, 480, 49)),
        ({"seconds": 0.01}, {}, (832, 480, 1)),
        ({"num_frames": 9}, {"defaults": {"seconds": 5}}, (832, 480, 9)),
        ({"seconds": 1.0}, {"defaults": {"num_frames": 81}}, (832, 480, 17)),
        ({"seconds": 5.0, "num_frames": 81}, {}, (832, 480, 81)),
        ({"num_frames": 9}, {"overrides": {"seconds": 1}}, (832, 480, 17)),
        ({"how": "64x32", "size": "small"}, {"columns": {"size": "how"}}, (64, 32, 81)),
        ({"size": 64, "seconds": 9}, {"columns": {"height": "size", "num_frames": "seconds"}}, (832, 64, 9)),
    ],
)
def test_size_and_seconds_are_the_arguments_that_they_mean(
    cells: dict[str, Any], job: dict[str, Any], means: tuple[int, ...], models: dict[str, PipelineSpec]
) -> None:
    row, plain = row_of(models["wan"], cells, **job), dict(zip(NAMES, means, strict=True))
    assert isinstance(row, CheckedRow), row
    as_arguments = row_of(models["wan"], {**plain, **({"fps": 8} if "fps" in cells else {})})
    assert isinstance(as_arguments, CheckedRow) and row.request == as_arguments.request, "the same row_id"


def test_an_override_by_the_own_size_of_each_row_is_refused(models: dict[str, PipelineSpec]) -> None:
    with pytest.raises(JobError, match=r"overrides\.size is 'Auto', which overrides nothing"):
        row_of(models["wan"], {"size": "64x32"}, overrides={"size": "Auto"})


@pytest.mark.parametrize(
    ("format", "fps", "is_fine"),
    [("gif", 50, True), ("gif", 60, False), ("webp", 120, False), ("mp4", 120, True)],
)
def test_a_rate_that_no_file_can_have_is_refused_before_rendering(
    format: Any, fps: float, is_fine: bool, models: dict[str, PipelineSpec]
) -> None:
    row = row_of(models["wan"], {"fps": fps}, media=Media(format=format))
    assert isinstance(row, CheckedRow) == is_fine, row


def test_an_argument_that_is_a_rate_is_checked_like_a_rate(models: dict[str, PipelineSpec]) -> None:
    wan = models["wan"]
    rate = replace(next(iter(wan.parameters.values())), name="frame_rate", kind="float", required=False)
    spec = replace(wan, parameters={**wan.parameters, "frame_rate": rate})
    for cell, job, is_fine in ((50.0, {}, True), (60.0, {}, False), (60.0, {"fps": 8.0}, True)):
        row = row_of(spec, {"frame_rate": cell}, media=Media(format="gif"), **job)
        assert isinstance(row, CheckedRow) == is_fine, row


def test_a_rate_out_of_step_with_the_sound_is_refused_before_rendering(
    models: dict[str, PipelineSpec],
) -> None:
    spec = replace(models["wan"], returns=models["wan"].returns | {"sound"})
    for fps, audio, is_fine in ((16, True, True), (30, True, False), (30, False, True)):
        row = row_of(spec, {"fps": fps}, media=Media(audio=audio))
        assert isinstance(row, CheckedRow) == is_fine, row


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"size": "wide"}, "size is 'wide', but it must be width x height"),
        ({"size": "0x480"}, "must be width x height"),
        ({"size": "99999x480"}, "a side may have at most 16,384 pixels"),
        ({"size": "833x480"}, "for its width, Wan renders multiples of 16"),
        ({"size": "832x480", "width": 640}, "size is '832x480', but width is 640"),
        ({"seconds": "long"}, "it must be a finite number"),
        ({"seconds": 0.0}, "above 0"),
        ({"seconds": 4000.0}, "at most 3,600"),
        ({"seconds": 2.0, "num_frames": 9}, "at 16 fps that is 33 frames, and num_frames is 9"),
    ],
)
def test_what_they_cannot_be_is_refused_with_the_row(
    cells: dict[str, Any], said: str, models: dict[str, PipelineSpec]
) -> None:
    row = row_of(models["wan"], cells)
    assert isinstance(row, InvalidRow)
    assert said in str(row.messages())


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"size": "wide"}, "defaults.size is 'wide', but it must be width x height"),
        ({"size": "64x32", "width": 48}, "defaults.size is '64x32', but defaults.width is 48"),
        ({"seconds": 2, "num_frames": 9}, "defaults has seconds and num_frames"),
        ({"aspect_ratio": "16:9"}, "defaults.aspect_ratio: rows have no such argument"),
    ],
)
def test_what_defaults_cannot_be_is_refused_once(
    defaults: dict[str, Any], said: str, models: dict[str, PipelineSpec]
) -> None:
    with pytest.raises(JobError) as refused:
        row_of(models["wan"], {}, defaults=defaults)
    assert refused.value.problem == said


@pytest.mark.parametrize(
    ("word", "name"),
    [({"size": "64x32"}, "height"), ({"size": "64x32"}, "width"), ({"seconds": 1}, "num_frames")],
)
@pytest.mark.parametrize(
    "defaults", [{}, {"height": None, "width": None, "num_frames": None}], ids=["", "null"]
)
def test_one_cell_that_is_refused_is_one_problem(
    word: dict[str, Any], name: str, defaults: dict[str, Any], models: dict[str, PipelineSpec]
) -> None:
    row = row_of(models["wan"], {**word, name: "abc"}, defaults=defaults)
    assert isinstance(row, InvalidRow) and [problem.column for problem in row.problems] == [name], row


def test_an_image_has_no_seconds(models: dict[str, PipelineSpec]) -> None:
    row = row_of(models["sd"], {"seconds": 4, "size": "64x32"})
    assert isinstance(row, CheckedRow) and row.request.arguments["width"] == 64
    with pytest.raises(JobError, match=r"defaults\.seconds: rows have no such argument"):
        row_of(models["sd"], {}, defaults={"seconds": 4})


# -- n --

CELLS = [
    (2, 5),
    (None, None),
    (None, 9),
    (3, None),
    (1, 4),
    (0, 1),
    (2500, 7),
    (2, -1),
    (2, 2**63 - 1),
    (1, None),
]


@pytest.mark.parametrize("num", [1, 3])
def test_a_row_comes_as_often_as_it_says_with_following_seeds(num: int, tmp_path: Path) -> None:
    lines = [",".join("" if cell is None else str(cell) for cell in ("a", *cells)) for cells in CELLS]
    (tmp_path / "t.csv").write_text("\n".join(["prompt,n,seed", *lines]) + "\n")
    own = open_table(str(tmp_path / "t.csv"), arguments={"n": "int", "seed": "int"})
    table = repeated(own, n="n", seed="seed", num=num, first_seed=4)
    expected = [  # by line of the file: n and seed of its rows, which are text here
        *((2, "1", "5"), (2, "1", "6")),
        *([(3, "1", None)] if num == 1 else [(3, "1", str(4 + number)) for number in range(num)]),
        *((4, "1", str(9 + number)) for number in range(num)),
        *((5, "1", str(4 + number)) for number in range(3)),
        *((6, "1", "4"), (7, "0", "1")),
        *((8, "1", str(7 + number)) for number in range(2500)),
        *((9, "1", "-1"), (10, "2", str(2**63 - 1)), (11, "1", None)),
    ]
    for batch_rows, start in ((1, 0), (3, 7), (1024, 0), (1024, 2400)):
        batches = list(table.batches(batch_rows, start=start))
        position, rows = batches[0][0], [row for _, batch in batches for row in batch.to_pylist()]
        assert position <= start < position + batches[0][1].num_rows
        assert [(row["n"], row["seed"]) for row in rows] == [one[1:] for one in expected[position:]]
        for first, batch in batches:
            assert first == position and batch.num_rows <= batch_rows
            position += batch.num_rows
    places = table.places({0, 1, 8, len(expected) - 1})
    assert places == {at: f"line {expected[at][0]}" for at in (0, 1, 8, len(expected) - 1)}


def test_the_clips_of_a_batch_are_never_all_in_memory(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,n\n" + "a,10000\n" * 1024)
    table = repeated(open_table(str(tmp_path / "t.csv")), n="n", seed="seed", num=1, first_seed=0)
    tracemalloc.start()
    try:
        next(table.batches())
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "job", "rows"),
    [
        ("prompt,n,seed\na,2,5\nb,,\n", {}, [("a", 5), ("a", 6), ("b", None)]),
        ("prompt,seed\na,5\nb,\n", {"n": 2}, [("a", 5), ("a", 6), ("b", 0), ("b", 1)]),
        ("prompt\na\n", {"n": 2, "seed": 8}, [("a", 8), ("a", 9)]),
        ("prompt,copies\na,2\n", {"columns": {"n": "copies"}, "seed": 8}, [("a", 8), ("a", 9)]),
        ("prompt,n\na,5\n", {"columns": {"num_frames": "n"}, "seed": 8}, [("a", 8)]),
        (None, {"n": 2, "sweep": {"prompt": ["a", "b"]}}, [("a", 0), ("a", 1), ("b", 0), ("b", 1)]),
        ("n\n3\n", {"sweep": {"prompt": "{n} {size} cats", "size": "big"}, "seed": 8}, [("3 big cats", 8)]),
        (None, {"sweep": {"prompt": "a", "size": ["64x32", "32x64"]}, "seed": 8}, [("a", 8), ("a", 8)]),
        ("prompt,n\na,0\n", {}, "n is '0', but it must be from 1 to 10,000"),
        ("prompt,n,seed\na,2,9223372036854775807\n", {}, "n is '2', but its seeds go beyond"),
        ("prompt\na\n", {"n": 0}, "defaults.n is 0, but it must be from 1"),
        ("prompt,n\na,2\n", {"overrides": {"seed": 3}}, "overrides.seed gives all rows the same seed"),
        (None, {"sweep": {"prompt": "a", "n": 4}}, "for several seeds, write `seed: 0-3`"),
        (None, {"n": 2, "sweep": {"prompt": "a", "seed": "0-3"}}, "defaults.n and sweep.seed"),
        ("prompt\na\n", {"n": 2, "sweep": {"seed": "0-3"}}, "defaults.n and sweep.seed both say which seeds"),
        ("prompt,n\na,2\n", {"sweep": {"seed": "0-3"}}, "column 'n' and sweep.seed both say which seeds"),
        ("prompt,n,seed\na,2,\n", {"sweep": {"seed": "0-3"}}, "the table also has a column 'seed'"),
    ],
)
def test_n_clips_are_rows_of_every_source_unless_the_word_means_something_else(
    text: str | None, job: dict[str, Any], rows: Any, tmp_path: Path
) -> None:
    defaults = {name: job[name] for name in ("n", "seed") if name in job}
    others = {name: value for name, value in job.items() if name not in defaults}
    (tmp_path / "t.csv").write_text(text or "")
    values = job_values(tmp_path / "t.csv", tmp_path / "out") | {"defaults": defaults} | others
    values |= {"table": None} if text is None else {}
    try:
        with resolved_from(values) as resolved:
            batches = list(resolved.table.batches())
            read = [row for first, batch in batches for row in resolved.rows.read(first, batch)]
    except UserError as error:
        assert rows in f"{error.problem} {error.fix}"
        return
    if isinstance(rows, str):
        assert rows in str(read[0].messages())  # type: ignore[union-attr]
        return
    requests = [row.request() for row in read if isinstance(row, IdentifiedRow)]
    assert len(requests) == len(read) == len(rows)
    for request, (prompt, seed) in zip(requests, rows, strict=True):
        assert request.arguments["prompt"] == prompt and seed in (None, request.seed)


@pytest.mark.parametrize(
    ("job", "made", "rows"),
    [
        ({"defaults": {"n": 2}, "sweep": {"prompt": ["a", "b"]}, "table": None}, {"seed": 1}, [("a", 1)]),
        ({"sweep": {"seed": "0-3"}}, {"seed": 2}, [("a", 2)]),
        ({"sweep": {"seed": "0-1"}}, {}, [("a", 0), ("a", 1)]),  # as of old files, whose values it replaces
    ],
)
def test_rows_that_were_made_of_a_sweep_are_not_swept_again(
    job: dict[str, Any], made: dict[str, Any], rows: list[Any], tmp_path: Path
) -> None:
    pq.write_table(pa.Table.from_pylist([{"prompt": "a", **made}]), tmp_path / "made.parquet")
    values = job_values(tmp_path / "t.csv", tmp_path / "out", defaults={}) | job
    with closing(resolve_job(load_job(values), Callback(), str(tmp_path / "made.parquet"))) as resolved:
        batches = list(resolved.table.batches())
        read = [row for first, batch in batches for row in resolved.rows.read(first, batch)]
    requests = [row.request() for row in read if isinstance(row, IdentifiedRow)]
    assert [(one.arguments["prompt"], one.seed) for one in requests] == rows


def test_a_request_of_python_has_a_size_and_is_one_row(models: dict[str, PipelineSpec]) -> None:
    def asked(**arguments: Any) -> Request:
        arguments = {"prompt": "a", **arguments}
        return checked(Request(arguments=arguments), models["wan"], BUILT_IN["generate"], finder=Finder())

    assert asked(size="64x32", seconds=1) == asked(width=64, height=32, num_frames=17)
    with pytest.raises(TableError, match="takes no argument 'n'"):
        asked(n=2)


@pytest.mark.parametrize(
    ("word", "names", "fix"),
    [
        ("row", ["narrowness", "rows"], "did you mean 'rows'?"),
        ("red", ["filtered", "rad"], "did you mean 'rad'?"),
        ("dtype", ["compile", "model_dtype_of_weights"], "did you mean 'model_dtype_of_weights'?"),
        ("size", ["prompt", "seed"], "use one of prompt, seed"),
    ],
)
def test_the_nearest_name_comes_before_one_that_has_the_word(word: str, names: list[str], fix: str) -> None:
    assert did_you_mean(word, names) == fix
