"""Jobs that render until enough clips pass: equal sets whoever renders and however often it is killed."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.errors import count_text
from framefleet.pipeline.metrics import idle_shares
from tests.commands import command
from tests.jobs import holder_of, job_values, num_clips, start_render, write_job, write_table
from tests.servers import S3Server

GROUPS = [{"prompt": f"a ball of colour {number}", "tag": str(number)} for number in range(12)]
UNTIL: dict[str, Any] = {"accepted": 5, "per": ["prompt"], "where": "third < 0.34", "at_most": 40}
SCORES = ["tests.until:third"]


def values(folder: Path, address: str | None, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    table = write_table(folder / "t.parquet", rows)
    made = job_values(table, folder / "out", address=address, scores=SCORES, **{"until": UNTIL, **more})
    made["fleet"]["workers"] = 1
    return made


def accepted_in(output: Path) -> set[str]:
    records = framefleet.read_records(str(output), columns=["row_id"], where="accepted")
    return {*records["row_id"].to_pylist()}


@pytest.mark.timeout(1800)
def test_twelve_groups_have_the_same_accepted_clips_whoever_renders_and_however_often_it_dies(
    tmp_path: Path, ray_cluster: str
) -> None:
    sets = []
    for num_workers, max_rows in ((1, 1), (2, 8)):
        folder = tmp_path / f"{num_workers}-{max_rows}"
        folder.mkdir()
        job = values(folder, ray_cluster, GROUPS, batching={"max_rows": max_rows, "min_gain": 0})
        job["fleet"]["workers"] = num_workers
        summary = framefleet.render(job)
        assert (summary.exit_code, summary.num_short) == (0, 0)
        print(num_workers, max_rows, summary.done, idle_shares(summary.figures))
        sets.append(check_complete(folder / "out"))
    folder = tmp_path / "killed"
    folder.mkdir()
    job = values(folder, None, GROUPS, batching={"max_rows": 8, "min_gain": 0})
    job["fleet"]["workers"] = 2
    file, moments = write_job(folder / "job.yaml", job), random.Random(51)
    for _ in range(5):
        process = start_render(file)
        before = num_clips(folder / "out")
        limit = before + moments.randrange(30)
        while process.poll() is None:
            holder = holder_of(folder / "out")
            if holder and holder.pid == process.pid and num_clips(folder / "out") > limit:
                break
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.communicate(timeout=60)
    summary = framefleet.render(job | {"fleet": job["fleet"] | {"address": ray_cluster}})
    assert summary.exit_code == 0
    sets.append(check_complete(folder / "out"))
    assert sets[0] == sets[1] == sets[2]


def check_complete(output: Path) -> set[str]:
    groups = framefleet.acceptance(str(output)).groups
    assert [group.accepted for group in groups] == [5] * 12
    records = framefleet.read_records(str(output), columns=["row_id", "accepted", "surplus"]).to_pylist()
    assert sum(record["surplus"] for record in records) <= 0.15 * len(records)
    assert sum(record["surplus"] for record in records) == sum(group.num_surplus for group in groups)
    assert not any(record["surplus"] and record["accepted"] for record in records)
    return accepted_in(output)


def test_what_is_accepted_is_shown_everywhere_and_a_group_that_falls_short_says_so(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = [
        {"prompt": prompt, "tag": style, "style": style} for prompt in ("a ball", "rain") for style in "ab"
    ]
    for row in rows:
        row["prompt"] += f" {row['style']}"
    until = {
        "accepted": 3,
        "per": [],
        "where": "third < 0.34",
        "at_most": 9,
        "share": {"style": {"a": 0.7, "b": 0.3}},
    }
    job = values(tmp_path, ray_cluster, rows, until=until)
    planned = command("plan", write_job(tmp_path / "job.yaml", job), "--set", "until.rate=0.5")
    assert "expected to pass: 50.0% (until.rate)" in planned.stdout and "about 6" in planned.stdout
    first = command("render", tmp_path / "job.yaml", "--set", "until.where=third < 0")
    out = tmp_path / "out"
    assert first.exit_code == 1
    assert "style=a: 0 of 2 accepted, 6 of at most 6 rendered, 0.0% pass: raise until.at_most" in first.stderr
    summary = framefleet.render(job)  # `where` may change: what is there is judged again
    assert (summary.done, summary.num_short) == (
        0,
        sum(g.is_short for g in framefleet.acceptance(str(out)).groups),
    )
    shown = command("status", out).stdout
    assert "accepted: " in shown and "style=a: " in shown
    notes = json.loads(command("status", out, "--json").stdout)["notes"]
    assert notes and all(line.strip() in shown for line in notes)
    assert "style=b: " in (out / "gallery/manifest.js").read_text()
    framefleet.report(str(out))
    assert "style=b: " in (out / "report.html").read_text()
    exported = command("export", out, tmp_path / "set", "--format", "parquet", "--where", "accepted", exits=0)
    assert f"{count_text(len(accepted_in(out)), 'clip')} in" in exported.stderr
    write_table(tmp_path / "wrong.parquet", [{"prompt": "a star c", "tag": "c", "style": "c"}])
    refused = command("add", tmp_path / "job.yaml", tmp_path / "wrong.parquet")
    assert refused.exit_code == 2 and "style is 'c', but until.share.style lacks it" in refused.stderr


def test_rows_that_are_added_become_groups_whether_the_job_runs_or_not(
    tmp_path: Path, ray_cluster: str, s3_server: S3Server
) -> None:
    """On S3, by a fleet that grows, and that a budget ends once."""
    output, options = f"{s3_server.url}/out", {"storage_options": s3_server.storage_options}
    fleet = {"workers": {"min": 1, "max": 2}, "gpus_per_worker": 0, "address": ray_cluster}
    job = values(tmp_path, ray_cluster, GROUPS[:2], until=UNTIL | {"accepted": 2})
    job |= {"output": output, "fleet": fleet, **options}
    assert framefleet.render(job | {"budget": {"bytes": "1KB"}}).over_budget
    assert framefleet.add(job, GROUPS[2:3]).rendered_by == "next"
    with ThreadPoolExecutor(1) as people:
        rendering = people.submit(framefleet.render, job)
        while not framefleet.status(output, **options).is_under_way:
            assert not rendering.done()
            time.sleep(0.1)
        added = framefleet.add(job, GROUPS[3:4], wait_s=240)
        assert added.rendered_by == "running"
        assert rendering.result().exit_code == 0
    groups = framefleet.acceptance(output, **options).groups
    assert [(one.values["prompt"], one.accepted) for one in groups] == [
        (row["prompt"], 2) for row in GROUPS[:4]
    ]
    assert framefleet.render(job).done == 0
