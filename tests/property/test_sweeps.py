"""However a sweep is written: as many rows as were counted, the same at every read, at the same numbers."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

from hypothesis import given, strategies as st

from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import Swept, open_sweep

TEXTS = st.lists(
    st.sampled_from(["a fox", "a {color} cat", "猫", "{{seed}}", "", "{a: 1}"]), min_size=1, max_size=3
)
RANGES = st.fixed_dictionaries(
    {"from": st.integers(-3, 3), "to": st.integers(-3, 3)}, optional={"num": st.integers(1, 4)}
)
NUMBERS = st.lists(st.integers(0, 9) | st.floats(0, 9), min_size=1, max_size=3) | RANGES
FACTORS: dict[str, st.SearchStrategy[Any]] = {
    "prompt": TEXTS,
    "seed": st.integers(0, 5).map(lambda last: f"0-{last}"),
    "guidance_scale": NUMBERS,
}
DRAWN = st.fixed_dictionaries(
    {
        "num": st.integers(1, 5),
        "method": st.sampled_from(["sobol", "random"]),
        "over": st.fixed_dictionaries({"eta": RANGES}, optional={"steps": st.just([1, 2, 3])}),
    }
)
SWEEPS = st.fixed_dictionaries({"color": st.just(["red", "blue"])}, optional={**FACTORS, "sample": DRAWN})


def swept(written: dict[str, Any]) -> Swept:
    if not any("{color}" in text for text in written.get("prompt", [])):
        written = {**written, "negative_prompt": "no {color}"}
    kinds: Any = {"prompt": "str", "negative_prompt": "str", "seed": "int", "eta": "float", "steps": "int"}
    kinds["guidance_scale"] = "float"
    return open_sweep(
        Sweep.model_validate(written), None, kinds=kinds, others=(), columns={}, storage_options={}
    )


@given(written=SWEEPS, batch_rows=st.integers(3, 100))
def test_there_are_as_many_rows_as_were_counted_at_their_numbers(
    written: dict[str, Any], batch_rows: int
) -> None:
    sweep = swept(written)
    batches = [*sweep.batches(batch_rows)]
    starts = [first for first, _ in batches]
    sizes = [batch.num_rows for _, batch in batches]
    assert starts == [sum(sizes[:number]) for number in range(len(sizes))]
    assert max(sizes) <= batch_rows
    assert sum(sizes) == sweep.num_rows == math.prod(factor.num for factor in sweep.factors)
    assert all(batch.schema == sweep.schema for _, batch in batches)


@given(written=SWEEPS, batch_rows=st.integers(3, 100))
def test_rows_are_the_same_at_every_read(written: dict[str, Any], batch_rows: int) -> None:
    def rows(size: int) -> list[Any]:
        return [*chain.from_iterable(batch.to_pylist() for _, batch in swept(written).batches(size))]

    assert rows(batch_rows) == rows(1024)


@given(written=SWEEPS, more=st.sampled_from(["a new prompt"]))
def test_a_value_more_adds_rows_and_changes_none(written: dict[str, Any], more: str) -> None:
    written = {"prompt": ["a fox"], **written}
    longer = {**written, "prompt": [*written["prompt"], more]}
    before, after = (
        {str(sorted(row.items())) for _, batch in swept(sweep).batches() for row in batch.to_pylist()}
        for sweep in (written, longer)
    )
    assert before < after
