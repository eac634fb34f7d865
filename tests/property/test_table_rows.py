"""Rows that are identified by what they have in common are those that are checked one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from framefleet.pipeline.errors import Refused
from framefleet.pipeline.model.specs.signature import InputKind
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import Finder, InvalidRow
from framefleet.pipeline.rows.tables.table_rows import MAX_REMEMBERED, IdentifiedRow, TableRows
from tests.configs import SD, WAN, write_model
from tests.long import examples

NUMERICS = {"dtype": "fp32"}
NUMBERS = st.sampled_from([1.0, 5.0, 0.0, -0.0, 5.0, 7.5, 1.0, -1.0, 1e300, float("nan"), float("inf")])
LISTS = st.lists(st.sampled_from([999.0, 500.0, 0.0, -0.0]), max_size=2)
# Few values of each, so that rows meet; most can be rendered.
CELLS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "prompt": (pa.string(), st.sampled_from(["a cat", '"{0}"', "雨 %s\\", " "]) | st.text(min_size=1)),
    "negative_prompt": (pa.string(), st.sampled_from(["", "blurry"]) | st.text(max_size=3)),
    "seed": (pa.int64(), st.integers(-1, 9) | st.integers(0, 2**63 - 1)),
    "guidance_scale": (pa.float64(), NUMBERS),
    "num_inference_steps": (pa.int64(), st.sampled_from([1, 30, 30, 1000, 1001])),
    "height": (pa.int64(), st.sampled_from([16, 64, 64, 100])),
    "num_frames": (pa.float64(), st.sampled_from([81.0, 1.0, 81.0, 81.5])),
    "scheduler": (pa.string(), st.sampled_from(["unipc", "flow_euler", "ddim", "euler"])),
    "recipe": (pa.string(), st.sampled_from(["generate", "generate", "refine", "this:zen"])),
    "fps": (pa.float64(), NUMBERS),
    "timesteps": (pa.list_(pa.float64()), LISTS),
    "image": (pa.string(), st.sampled_from(["a.png", "a.png", "http://user:secret@host/b.png"])),
    "label": (pa.string(), st.text(max_size=2)),
}
AS_TEXT = ("guidance_scale", "seed", "height", "fps")  # as a CSV has them
NOTHING = Refused(reason="it does not exist", fix="check the path")
DEFAULTS: tuple[dict[str, Any], ...] = ({}, {"seed": 7}, {"negative_prompt": "dull"}, {"prompt": "a dog"})


class Shelf(Finder):
    """A finder of one image."""

    def find(self, uri: str, kind: InputKind) -> Described | Refused:
        return Described(sha256="aa", width=8, height=8, num_frames=1) if uri == "a.png" else NOTHING


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[PipelineSpec]:
    folder: Path = tmp_path_factory.mktemp("models")
    return [
        inspect_model(write_model(folder / "wan", "WanPipeline", WAN)),
        inspect_model(write_model(folder / "sd", "StableDiffusionPipeline", SD)),
        inspect_model(write_model(folder / "i2v", "WanImageToVideoPipeline", WAN)),
    ]


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    names = ["prompt", *draw(st.sets(st.sampled_from([*CELLS][1:]), max_size=5))]
    num_rows = draw(st.integers(1, 12))
    columns = []
    for name in names:
        kind, strategy = CELLS[name]
        cells = draw(st.lists(st.none() | strategy, min_size=num_rows, max_size=num_rows))
        if name in AS_TEXT and draw(st.booleans()):
            kind, cells = pa.string(), [None if cell is None else str(cell) for cell in cells]
        columns.append(pa.array(cells, kind))
    if draw(st.integers(0, 3)) == 0:
        columns[0] = pa.array([b"\xe9t\xe9", *columns[0].to_pylist()[1:]], pa.binary()).view(pa.string())
    return pa.RecordBatch.from_arrays(columns, names=names)


def shown(row: IdentifiedRow | InvalidRow) -> Any:
    if isinstance(row, InvalidRow):
        return row
    return row.row_id, row.shape, row.request(), [*row.request().arguments]


@settings(deadline=None, max_examples=examples(150))
@given(batch=tables(), defaults=st.sampled_from(DEFAULTS), model=st.integers(0, 2), data=st.data())
def test_rows_in_common_are_the_rows_one_by_one(
    specs: list[PipelineSpec],
    batch: pa.RecordBatch,
    defaults: dict[str, Any],
    model: int,
    data: st.DataObject,
) -> None:
    image = {"image": "a.png"} if "image" in specs[model].parameters else {}
    plan = plan_rows(batch.schema, specs[model], defaults=defaults | image, finder=Shelf())
    identity = Identity(model_digest="ab", numerics=NUMERICS, recipes=BUILT_IN)
    expected = [
        row
        if isinstance(row, InvalidRow)
        else (identity(row.request), row.shape, row.request, [*row.request.arguments])
        for row in plan.rows(3, batch)
    ]
    rows = TableRows(plan, identity, max_remembered=data.draw(st.sampled_from([MAX_REMEMBERED, 5000, 0])))
    positions = range(3, 3 + batch.num_rows)
    assert repr([shown(row) for row in rows.read(positions, batch)]) == repr(expected)  # NaN is not itself
    wanted = data.draw(st.sets(st.sampled_from(positions)))
    again = [shown(row) for row in rows.read(positions, batch, only=wanted)]
    assert repr(again) == repr([row for at, row in enumerate(expected, start=3) if at in wanted])
