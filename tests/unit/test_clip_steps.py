"""What a plugin does with a clip: its values are stored as they are, and its errors name it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from framefleet import Batching, Inputs, Store
from framefleet.cluster.worker.messages import Failed, StoredRow, WorkerSetup
from framefleet.cluster.worker.queues import Writers
from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.clip_step import ClipStep, StepValues, cell_of, checked_values
from framefleet.pipeline.outputs.media.media_settings import Media
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
        refused = f"clip step arrays: the column 'brightness' is {kind}, and cannot"
        with pytest.raises(RenderError, match=refused):
            checked_values("arrays", pa.schema([column]), StepValues(values={"brightness": value}))
    assert cell_of(column, None) is None


@pytest.mark.parametrize(
    ("values", "problem", "fix"),
    [
        (StepValues(values={"brightnes": 0.5}), "has a value for 'brightnes', and no such", "'brightness'?"),
        ({"brightness": 0.5}, "clip step arrays: its values are {'brightness': 0.5}", "return StepValues"),
    ],
)
def test_what_is_no_value_of_a_column_is_refused(values: object, problem: str, fix: str) -> None:
    with pytest.raises(RenderError) as raised:
        checked_values("arrays", pa.schema([("brightness", pa.float64())]), values)
    assert problem in raised.value.problem and fix in raised.value.fix


class Faulty(ClipStep):
    """Fails in one of its methods."""

    columns = pa.schema([("brightness", pa.int64())])

    def __init__(self, method: str) -> None:
        setattr(self, method, self.fail)

    def fail(self, *of: object) -> None:
        raise LookupError("no weights")

    def values(self, of: object, content: bytes, record: object) -> StepValues:
        return StepValues(values={"brightness": 2.7})


@pytest.mark.parametrize("method", ["frames", "tags", "file", "derived", "label", "values", "none"])
def test_a_row_that_a_step_fails_names_its_section(tmp_path: Path, method: str) -> None:
    setup = WorkerSetup(
        model=ModelSettings(path="none"),
        batching=Batching(),
        media=Media(format="mkv"),
        steps={"plain": ClipStep(), "arrays": Faulty(method)},
        store=Store(str(tmp_path)),
        recipes={},
        inputs=Inputs([]),
    )
    news: Queue[StoredRow | Failed] = Queue()
    (writers := Writers(setup, news.put)).start()
    writers.put(replace(CLIP, model_digest="0" * 64), attempt=1)
    failed = news.get(timeout=60)
    assert isinstance(failed, Failed) and failed.message.startswith("clip step arrays: ")
    value = "the column 'brightness' is int64, and cannot hold 2.7"
    assert (value if method == "none" else "no weights") in failed.message
