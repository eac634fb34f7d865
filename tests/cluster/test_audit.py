"""Audits of a job: rows that hidden state made wrong are found, also if they have records, and put right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from framefleet import Request, Store, load_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.render.audit.verdict import EQUAL, PLAINLY
from tests.commands import command
from tests.hidden_state import QUICK, remembers
from tests.jobs import all_columns, check_whole, job_values, records_of, write_job, write_table
from tests.tiny import SMALLEST, tiny

REMEMBERS, WANDERS = "tests.hidden_state:remembers", "tests.hidden_state:wanders"
SIZES = SMALLEST["wan"] | {"max_sequence_length": 32}


def _rows(recipe: str, steps: list[int], *, first: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"ball {seed}",
            "seed": seed,
            "num_inference_steps": count,
            "recipe": recipe,
            "tag": f"row {seed}",
        }
        for seed, count in enumerate(steps, start=first)
    ]


def _plain(pipe: Any, row: dict[str, Any]) -> str:
    """The digest of a plain call: the recipe gives each a scheduler of its own."""
    own = {name: row[name] for name in ("prompt", "num_inference_steps")}
    return frames_sha256(to_frames(remembers(pipe, Request(arguments=SIZES | own, seed=row["seed"]))))


def test_rows_that_hidden_state_made_wrong_are_rendered_again_and_all_records_are_right(
    tmp_path: Path, ray_cluster: str
) -> None:
    # The state shows from the third step on: the first audits find nothing, and wrong rows get records.
    quick, slow = _rows(REMEMBERS, [QUICK] * 8, first=0), _rows(REMEMBERS, [4, 5, 4, 3] * 2, first=8)
    never_equal = _rows(WANDERS, [2] * 3, first=16)
    table = write_table(tmp_path / "t.parquet", [*quick, *slow, *never_equal])
    values = job_values(table, tmp_path / "out", address=ray_cluster, recipe=REMEMBERS, audit={"every": 3})
    values["fleet"]["workers"] = 1  # so that it begins with the quick rows
    job = write_job(tmp_path / "job.yaml", values)
    ended = command("render", job, exits=0)

    records = {record["tag"]: record for record in records_of(tmp_path / "out")}
    assert all_columns(Store(str(tmp_path / "out")), "records").num_rows == 19 == len(records)
    pipe = load_model(tiny("wan"), dtype="fp32").pipe
    for row in [*quick, *slow]:
        assert records[row["tag"]]["frames_sha256"] == _plain(pipe, row)
    check_whole(tmp_path / "out")

    kind = "rows of tests.hidden_state:remembers 5 x 16 x 16, 32 tokens"
    assert f"audit: {kind} differ if they are not rendered by plain calls, so each was" in ended.stderr
    assert "of these rows had a record, which was replaced" in ended.stderr
    assert (
        "audit: rows of tests.hidden_state:wanders 5 x 16 x 16, 32 tokens cannot be repeated" in ended.stderr
    )
    found = re.search(
        rf"^warning: (\S+): {kind} differ if they are not rendered by plain calls, as row", ended.stderr, re.M
    )
    assert found, ended.stderr
    (spoiled,) = found.groups()  # worker-0, unless its first process ended early
    assert f"{spoiled}: it rendered {kind}, and a new process takes its place" in ended.stderr
    healed = {record["worker"] for record in records.values() if "plain call:" in record["environment"]}
    assert healed and spoiled not in healed  # rows of this kind are healed in a new process
    remarks = {tag: json.loads(record["environment"]).get("audit") for tag, record in records.items()}
    assert all((remarks[row["tag"]] or "").startswith((EQUAL, PLAINLY)) for row in slow)
    assert "two plain calls of such a row differed" in remarks.values()

    again = command("render", job)
    assert "nothing to do: every row has a record" in again.stderr
