"""A stranger's plugin that renders, chooses by a score and renders again, until enough clips are good."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pyarrow.parquet as pq

from tests.cluster.test_example_plugin import run
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table

PLUGIN = """
    from dataclasses import replace
    from pathlib import Path

    import pyarrow.parquet as pq

    from framefleet.api import JobRunner
    from framefleet.api import Plugin
    from framefleet.jobs.job.section import Section
    from framefleet.pipeline.outputs.output import Output

    class EnoughSection(Section):
        '''Rows are rendered in the table's order until enough of them are good.'''
        good: int
        where: str

    class EnoughRunner(JobRunner):
        section = "enough"

        def render(self, job, watch, scope, *, run):
            rows, enough = pq.read_table(scope.table or job.table), job.enough
            for num_rows in range(enough.good, len(rows) + 1):
                part = Path(job.output).with_name(f"first_{num_rows}.parquet")
                pq.write_table(rows[:num_rows], part)
                summary = run(job, watch, replace(scope, table=str(part)))
                good = sum(map(len, Output(summary.store).records(["row_id"], where=enough.where)))
                watch.say(f"{good} of {num_rows} rows are good")
                if good >= enough.good:
                    break
            return summary

    PLUGIN = Plugin(
        sections={"enough": "enough_package:EnoughSection"}, runners=["enough_package:EnoughRunner"]
    )
"""


def test_a_plugin_renders_rows_until_enough_are_good(tmp_path: Path, ray_cluster: str) -> None:
    (tmp_path / "enough_package.py").write_text(dedent(PLUGIN))
    about = tmp_path / "enough_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: enough-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[framefleet.plugins]\nenough = enough_package:PLUGIN\n")
    table = write_table(tmp_path / "t.parquet", prompt_rows(6))
    values = job_values(table, tmp_path / "out", address=ray_cluster, scores=["sharpness"])
    enough = {"good": 2, "where": "seed >= 1"}  # the third row is the second good one
    job = write_job(tmp_path / "job.yaml", values | {"enough": enough})
    ended = run(tmp_path, "-m", "framefleet", "render", job)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2 rows are good" in ended.stderr and "2 of 3 rows are good" in ended.stderr
    assert sorted(record["seed"] for record in records_of(tmp_path / "out")) == [0, 1, 2]
    assert run(tmp_path, "-m", "framefleet", "add", job, table).returncode == 2
    again = run(tmp_path, "-m", "framefleet", "render", job)
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True)
    assert pq.read_table(tmp_path / "first_3.parquet").num_rows == 3
    refused = run(tmp_path, "-m", "framefleet", "render", job, "--set", "enough.goood=2")
    assert "did you mean `enough.good`?" in refused.stderr

    drafted = {"num_inference_steps": 1, "keep": {"where": "true"}}
    both = values | {"enough": enough, "draft": drafted, "output": str(tmp_path / "both")}
    ended = run(tmp_path, "-m", "framefleet", "render", write_job(tmp_path / "both.yaml", both))
    assert ended.returncode == 0, ended.stderr
    assert len(records_of(tmp_path / "both")) == len(records_of(tmp_path / "both/drafts")) == 3
