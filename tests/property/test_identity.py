"""A row's identity: the same for every spelling of the same row, another for each part that decides it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from framefleet import Request
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.tables import row_ids
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow
from tests.configs import WAN, write_model
from tests.rows import row_id

REST: dict[str, Any] = {"model_digest": "ab", "numerics": {"dtype": "fp32"}, "recipe_digest": None}
CELLS = st.fixed_dictionaries(
    {"prompt": st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)},
    optional={
        "negative_prompt": st.text(st.characters(codec="utf-8")),
        "num_frames": st.integers(0, 30).map(lambda k: 4 * k + 1),
        "num_inference_steps": st.integers(1, 1000),
        "guidance_scale": st.integers(0, 20),
        "seed": st.integers(0, 2**53 - 1),
        "scheduler": st.sampled_from(["unipc", "flow_euler"]),
    },
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    folder: Path = tmp_path_factory.mktemp("model")
    return inspect_model(write_model(folder, "WanPipeline", WAN))


def identity(cells: dict[str, Any], spec: PipelineSpec) -> str:
    table = pa.RecordBatch.from_pylist([cells])
    (row,) = plan_rows(table.schema, spec).rows(0, table)
    assert isinstance(row, CheckedRow)
    return row_id(row.request, **REST)


def spelled_otherwise(cells: dict[str, Any]) -> dict[str, Any]:
    """Return the cells in another order, whole numbers as floats, and columns that mean nothing beside."""
    numbers = {name: float(cell) if isinstance(cell, int) else cell for name, cell in cells.items()}
    return {"tag": "x", **dict(reversed(numbers.items())), "score": 0.5}


@settings(deadline=None)
@given(cells=CELLS)
def test_order_spelling_and_carried_columns_do_not_matter(spec: PipelineSpec, cells: dict[str, Any]) -> None:
    assert identity(cells, spec) == identity(spelled_otherwise(cells), spec)


@settings(deadline=None)
@given(cells=CELLS)
def test_defaults_written_out_do_not_matter(spec: PipelineSpec, cells: dict[str, Any]) -> None:
    assert identity(cells, spec) == identity({**spec.defaults(), **cells}, spec)


@given(text=st.text(), seed=st.integers(0, 2**63 - 1), scale=st.floats(0, 20))
def test_every_part_matters(text: str, seed: int, scale: float) -> None:
    request = Request(arguments={"prompt": text, "guidance_scale": scale}, seed=seed, scheduler="A")
    changed = [
        row_id(replace(request, arguments={**request.arguments, "prompt": text + "!"}), **REST),
        row_id(replace(request, arguments={**request.arguments, "guidance_scale": scale + 1}), **REST),
        row_id(replace(request, arguments={**request.arguments, "eta": 0.0}), **REST),
        row_id(replace(request, seed=seed ^ 1), **REST),
        row_id(replace(request, scheduler="B"), **REST),
        row_id(replace(request, recipe="m:f"), **REST),
        row_id(replace(request, fps=8.0), **REST),
        row_id(request, **(REST | {"model_digest": "cd"})),
        row_id(request, **(REST | {"numerics": {"dtype": "bf16"}})),
        row_id(request, **(REST | {"recipe_digest": "ef"})),
    ]
    assert len({row_id(request, **REST), *changed}) == len(changed) + 1


HALF = st.sampled_from(["0" * 16, "0" * 15 + "1", "7" + "f" * 15, "8" + "0" * 15, "f" * 16])
TABLES = st.dictionaries(st.integers(0, 40), st.builds(str.__add__, HALF, HALF))


@given(table=TABLES, others=st.lists(st.builds(str.__add__, HALF, HALF)), at_once=st.integers(1, 9))
def test_what_is_found_is_what_was_written(table: dict[int, str], others: list[str], at_once: int) -> None:
    with closing(row_ids.RowIds(at_once=at_once)) as ids:
        is_there = np.zeros(max(table, default=-1) + 1, np.bool_)
        for rows in _pieces([*table.items()]):
            positions = row_ids.as_positions(position for position, _ in rows)
            is_there[positions] = True
            ids.write(positions, row_ids.to_ids([row_id for _, row_id in rows]))
        places = {row_id: sorted(at for at in table if table[at] == row_id) for row_id in table.values()}
        pairs = [(one, other) for some in ids.sort(is_there) for one, other in zip(*some, strict=True)]
        twinned, twins = [one for one, _ in pairs], [other for _, other in pairs]

        assert sorted(twins) == sorted(at for found in places.values() for at in found[1:])
        assert sorted(twinned) == sorted(at for found in places.values() for at in found[:-1])
        asked = [*places, *others]
        firsts = [places.get(row_id, [-1])[0] for row_id in asked]
        assert ids.first_positions(row_ids.to_ids(asked)).tolist() == firsts
        column = pa.chunked_array(
            [pa.array(asked[:2], pa.string()), pa.array(["x", *asked[2:]], pa.string())[1:]]
        )
        assert (row_ids.ids_of(column) == row_ids.to_ids(asked)).all()
        assert [ids.positions(row_id) for row_id in asked] == [places.get(row_id, []) for row_id in asked]
        assert row_ids.to_texts(ids.read_at(row_ids.as_positions(table))) == [*table.values()]


def _pieces(rows: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    for first in range(0, len(rows), 3):
        yield rows[first : first + 3]


@given(lists=st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1), first=st.integers(0, 3))
def test_the_first_of_each_list_is_taken(lists: list[list[int]], first: int) -> None:
    halves = pa.array(lists[:1], pa.list_(pa.int64())), pa.array(lists[1:], pa.list_(pa.int64()))
    found = row_ids.first_positions_of(pa.chunked_array(halves).slice(first))
    expected = [one[0] for one in lists[first:]]
    assert (found is None and not expected) or (found is not None and found.tolist() == expected)


@pytest.mark.parametrize("lists", [[[1], []], [[1], None], [[1], [None]], []])
def test_where_a_list_has_no_first_there_is_none(lists: list[list[int | None] | None]) -> None:
    assert row_ids.first_positions_of(pa.chunked_array([pa.array(lists, pa.list_(pa.int64()))])) is None
