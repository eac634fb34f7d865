"""A damaged output is repaired by one command and verified by a fleet; rows that failed are tried again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands import command
from tests.jobs import digests_by_tag, job_values, prompt_rows, records_of, write_job, write_table


def test_a_damaged_output_is_repaired_and_has_the_same_frames(tmp_path: Path, ray_cluster: str) -> None:
    out = tmp_path / "out"
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(6)), out, address=ray_cluster)
    job = write_job(tmp_path / "job.yaml", values)
    assert command("render", job).exit_code == 0
    before = digests_by_tag(out)
    some = sorted(out.glob("clips/*/*.mp4"))
    some[0].unlink()
    some[1].write_bytes(some[1].read_bytes()[:100])
    (out / "job.json").unlink()
    assert command("verify", out, "--files").exit_code == 1
    dry = command("repair", out, "--dry-run")
    assert dry.exit_code == 1 and "job.json would be put back" in dry.stderr
    mended = command("repair", out)
    assert mended.exit_code == 1 and "2 records taken out" in mended.stderr, mended.output
    assert "to render them: framefleet render JOB.YAML" in mended.stderr
    some[2].unlink()
    repaired = command("repair", job, exits=0)
    assert "1 record taken out" in repaired.stderr and "3 rows rendered" in repaired.stderr
    assert digests_by_tag(out) == before
    assert command("verify", out, "--files").exit_code == 0
    verified = command("verify", out, "--fleet", job, "--sample", "2")
    assert verified.exit_code == 0 and verified.stdout.count("bit-exact") == 2, verified.output
    assert not (out / ".verify").exists() or not list((out / ".verify").iterdir())


@pytest.mark.promise("A row that fails during rendering never stops the others", "exit code 1")
def test_rows_that_failed_are_tried_again_and_no_others(tmp_path: Path, ray_cluster: str) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken"
    rows = [row | {"broken": ""} for row in prompt_rows(4)]
    rows[0]["broken"] = str(broken)
    table = write_table(tmp_path / "t.parquet", rows[:3])
    values = job_values(
        table, out, address=ray_cluster, retries={"attempts": 1}, recipe="tests.faults:raises_while"
    )
    broken.touch()
    job = write_job(tmp_path / "job.yaml", values)
    assert command("render", job).exit_code == 1
    write_table(table, rows)  # one more, which is not to be rendered yet
    broken.unlink()
    refused = command("retry", out)
    assert refused.exit_code == 2 and "framefleet retry JOB.YAML" in refused.stderr, refused.output
    told = command("retry", job, "--error", "KeyError").stderr
    assert re.search(r"nothing to retry: no row of .* failed with KeyError; there are ", told), told
    retried = command("retry", job, "--json")
    assert (retried.exit_code, json.loads(retried.stdout)["done"]) == (0, 1), retried.output
    assert "1 row failed with ValueError, e.g. broken" in retried.stderr
    assert sorted(row["tag"] for row in records_of(out)) == ["row 0", "row 1", "row 2"]
    assert records_of(out, "failures") == []
    nothing = command("retry", job, "--json", "--quiet")
    assert (nothing.exit_code, json.loads(nothing.stdout)["done"], nothing.stderr) == (0, 0, "")
