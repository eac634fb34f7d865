"""What a plugin does with a clip: its values are stored as they are, and its errors name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from framefleet import Batching, Inputs, RenderError, Store
from framefleet.api.clips import Frames, Media
from framefleet.cluster.worker.messages import Failed, StoredRow, WorkerSetup
from framefleet.cluster.worker.queues import Writers
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.columns import ClipColumn, cell_of
from framefleet.pipeline.outputs.file_step import FileStep, StepInput, checked_values
from tests.unit.test_encode_clip import CLIP


@pytest.mark.parametrize(
    ("kind", "fits", "misfits"),
    [
        (pa.int64(), [2, 2.0, np.int32(2)], [2.7, np.float32(2.7), True, "2", 2**63, float("nan")]),
        (pa.uint8(), [0, 255], [-1, 256, 0.5]),
        (pa.float64(), [2, 2.7, np.float32(0.5), np.array(1.5)], ["2.7", True, np.zeros(2), 2**60 + 1]),
        (pa.float32(), [0.1, float("inf")], [1e300, b"1"]),
        (pa.bool_(), [True, np.bool_(False)], [1, "true", 0.0]),
        (pa.string(), ["", "a"], [5, True, b"a", "\ud800", ["a"]]),
    ],
)
def test_a_value_is_stored_as_it_is_or_refused(
    kind: pa.DataType, fits: list[Any], misfits: list[Any]
) -> None:
    column = pa.field("brightness", kind)
    for value in fits:
        cell = cell_of(column, value)
        assert type(cell) in (int, float, bool, str)
        assert cell == pytest.approx(value.item() if hasattr(value, "item") else value)
    for value in misfits:
        refused = f"file step arrays: the column 'brightness' is {kind}, which cannot"
        with pytest.raises(RenderError, match=refused):
            checked_values({"arrays": with_columns(pa.schema([column]))}, {"brightness": value})
    assert cell_of(column, None) is None


def with_columns(schema: pa.Schema) -> FileStep:
    class Arrays(FileStep):
        columns = schema

    return Arrays()


def test_what_is_no_value_of_a_column_is_refused() -> None:
    steps = {"arrays": with_columns(pa.schema([("brightness", pa.float64())]))}
    with pytest.raises(RenderError, match="there is a value for 'brightnes', but no such") as raised:
        checked_values(steps, {"brightnes": 0.5})
    assert "'brightness'?" in raised.value.fix
    assert checked_values(steps, {}) == {"brightness": None}


class Faulty(FileStep):
    """Fails in one of its methods."""

    columns = pa.schema([("brightness", pa.int64())])

    def __init__(self, method: str) -> None:
        setattr(self, method, self.fail)

    def fail(self, *of: object) -> None:
        raise LookupError("no weights")

    def file(self, content: bytes, of: StepInput) -> bytes:
        of.values["brightness"] = 2.7
        return content


def stored(store: Store, **more: Any) -> StoredRow | Failed:
    """Return what a worker's writer reports of a clip. more: of the setup."""
    setup = WorkerSetup(
        model=ModelSettings(path="none"),
        batching=Batching(),
        media=Media(format="mkv"),
        store=store,
        recipes={},
        inputs=Inputs([]),
        **more,
    )
    news: Queue[StoredRow | Failed] = Queue()
    (writers := Writers(setup, news.put)).start()
    writers.put(replace(CLIP, model_digest="0" * 64), attempt=1)
    return news.get(timeout=60)


class Exiting(FileStep):
    def file(self, content: bytes, of: StepInput) -> bytes:
        raise SystemExit(3)


def test_code_that_wants_to_exit_fails_its_row_and_ends_no_writer(tmp_path: Path) -> None:
    failed = stored(Store(str(tmp_path)), steps={"exits": Exiting()})
    assert isinstance(failed, Failed) and "its code raised SystemExit: 3" in failed.message


@pytest.mark.parametrize("method", ["frames", "tags", "file", "second_file", "none"])
def test_a_row_that_a_step_fails_names_its_section(tmp_path: Path, method: str) -> None:
    failed = stored(Store(str(tmp_path)), steps={"plain": FileStep(), "arrays": Faulty(method)})
    assert isinstance(failed, Failed) and failed.message.startswith("file step arrays: ")
    value = "the column 'brightness' is int64, which cannot hold 2.7"
    assert (value if method == "none" else "no weights") in failed.message


@pytest.mark.parametrize(
    ("method", "value", "problem"),
    [
        ("frames", None, "`frames` returned NoneType"),
        ("frames", CLIP.frames[0], "`frames` returned uint8 of the shape (16, 16, 3)"),
        ("frames", CLIP.frames / 2, "`frames` returned float64 of the shape (2, 16, 16, 3)"),
        ("tags", {"comment": 3}, "`tags` returned int"),
        ("tags", [], "`tags` returned list"),
        ("file", None, "`file` returned NoneType"),
        ("file", b"", "`file` returned 0 bytes"),
        ("second_file", b"", "`second_file` returned bytes"),
    ],
)
def test_what_a_method_may_not_return_is_named(
    tmp_path: Path, method: str, value: object, problem: str
) -> None:
    step = type("Strange", (FileStep,), {method: lambda self, *of: value})()
    failed = stored(Store(str(tmp_path)), steps={"arrays": step})
    assert isinstance(failed, Failed) and failed.message.startswith(f"file step arrays: {problem}")


def test_columns_are_measured_on_the_frames_as_rendered_and_nothing_is_read(tmp_path: Path) -> None:
    looked_at = []

    def brightness(frames: Frames, record: Mapping[str, Any]) -> float:
        looked_at.append(frames)
        return record["seed"] + float(frames.mean())

    columns = [
        ClipColumn(name=name, type=pa.float64(), section="mine", function=brightness) for name in ("a", "b")
    ]
    row = stored(store := Store(str(tmp_path)), columns=columns)
    assert isinstance(row, StoredRow) and CLIP.frames is not None
    assert row.added.values == dict.fromkeys(["a", "b"], CLIP.request.seed + float(CLIP.frames.mean()))
    assert looked_at[0] is looked_at[1], "and copied once"
    assert not [key for key in store.counts.figures() if "read" in key]
