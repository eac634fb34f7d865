"""Rows of users' recipes and of framefleet's own in one job: no process renders both."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.render.audit.verdict import EQUALS
from framefleet.plugins.keep.replay.given import Given
from tests.jobs import digests_by_tag, job_values, prompt_rows, records_of, write_table

OWN, NUM_ROWS = "tests.spoilers", 12
RECIPES = {3: f"{OWN}:stronger_steps", 4: f"{OWN}:seamless", 8: f"{OWN}:stronger_steps", 9: f"{OWN}:harmless"}
# Each leaves something behind that spoils later rows of its process.
SPOILING = ("mirrored", "louder_text", "slotted", "patched_torch", "modes")
FLEET = {"workers": 1, "gpus_per_worker": 0}


def values_of(folder: Path, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    table = write_table(folder / f"{len(rows)}.parquet", rows)
    return job_values(table, folder / f"out-{len(rows)}", recipe=f"{OWN}:harmless", **more)


def test_rows_that_spoil_their_process_spoil_no_row_of_another_recipe(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = prompt_rows(NUM_ROWS)
    mixed = [row | {"recipe": RECIPES.get(number, "generate")} for number, row in enumerate(rows)]
    fleet = FLEET | {"address": ray_cluster}
    values = values_of(tmp_path, mixed, fleet=fleet, keep_embeddings=True)
    assert len(framefleet.plan(values).lanes) == 4
    summary = framefleet.render(values)
    assert (summary.done, summary.failed) == (NUM_ROWS, 0)
    records = records_of(values["output"])
    lanes = {(record["worker"], record["recipe"]) for record in records}
    assert len(lanes) == 4 and len({worker for worker, _ in lanes}) == 4, "each has a process of its own"

    spoiling = [record["row_id"] for record in records if record["recipe"] == RECIPES[3]]
    chosen = [*spoiling, next(record["row_id"] for record in records if record["recipe"] == "generate")]
    verified = framefleet.verify(values["output"], row_ids=chosen, given=Given(recipe=[*RECIPES.values()]))
    assert len(verified.rows) == 3 and verified.is_well, "each in a process that has rendered no other"

    plain = [row | {"recipe": "generate"} for number, row in enumerate(rows) if number not in RECIPES]
    values = values_of(tmp_path, plain, fleet=fleet)
    assert len(framefleet.plan(values).lanes) == 1
    framefleet.render(values)
    alone = digests_by_tag(values["output"])
    found = digests_by_tag(tmp_path / f"out-{NUM_ROWS}")
    assert {tag: found[tag] for tag in alone} == alone

    sizes: dict[str, float] = {}  # of the largest batches
    for record in records:
        sizes[record["recipe"]] = max(record["batch_size"], sizes.get(record["recipe"], 0.0))
    assert sizes[f"{OWN}:stronger_steps"] == 1.0 and sizes["generate"] > 1.0


@pytest.mark.timeout(900)
def test_of_a_mixed_job_no_other_row_is_wrong_and_none_that_spoils_is_called_equal(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = [
        row | {"recipe": f"{OWN}:{SPOILING[number // 3]}" if number % 3 and number < 15 else "generate"}
        for number, row in enumerate(prompt_rows(20))
    ]
    fleet = FLEET | {"address": ray_cluster}
    more: dict[str, Any] = {"fleet": fleet, "keep_embeddings": True, "audit": {"every": 2}}
    for num_rows in (16, 20):  # the second run finds the embeddings of the first
        table = write_table(tmp_path / "t.parquet", rows[:num_rows])
        summary = framefleet.render(job_values(table, tmp_path / "out", recipe=f"{OWN}:harmless", **more))
        assert summary.failed == 0
    values = values_of(tmp_path, [row for row in rows if row["recipe"] == "generate"], fleet=fleet)
    framefleet.render(values)
    assert digests_by_tag(values["output"]).items() <= digests_by_tag(tmp_path / "out").items()
    records = records_of(tmp_path / "out")
    assert len(records) == len(rows)
    remarks = [
        json.loads(record["environment"])["audit"] for record in records if record["recipe"] != "generate"
    ]
    assert not any(remark.startswith(EQUALS) for remark in remarks)


def test_rows_that_spoil_later_rows_of_their_recipe_are_not_called_equal_and_verify_finds_them(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = prompt_rows(3)
    table, recipe = write_table(tmp_path / "t.parquet", rows), f"{OWN}:drifting"
    fleet = FLEET | {"address": ray_cluster}
    values = job_values(table, tmp_path / "out", recipe=recipe, fleet=fleet, audit={"every": 1})
    summary = framefleet.render(values)
    assert (summary.done, summary.failed) == (3, 0)
    assert summary.audits and (summary.audits.num_equal, summary.audits.most_wrong) == (0, 3)
    records = records_of(tmp_path / "out")
    assert not any(json.loads(record["environment"])["audit"].startswith(EQUALS) for record in records)
    verified = framefleet.verify(
        tmp_path / "out", row_ids=[record["row_id"] for record in records], given=Given(recipe=recipe)
    )
    verdicts = Counter(row.compared.verdict for row in verified.rows)
    assert verdicts == {"bit-exact": 1, "different": 2}
