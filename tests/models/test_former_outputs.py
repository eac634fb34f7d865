"""What earlier versions wrote goes on: an output is resumed under its row_ids.

references/output: five rows that it rendered. references/output_with_drafts: four drafts, of which one failed
while the best of the others were rendered in full.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import framefleet
from framefleet.plugins.demo.prepare import MODEL
from tests.commands import command
from tests.jobs import write_job

REFERENCES = Path(__file__).parents[1] / "references"


def planned(output: Path) -> dict[str, str]:
    """Return how many rows `framefleet plan` finds done, and how many it would render."""
    written = json.loads((output / "job.json").read_text("utf-8"))["job"]
    job = {key: written[key] for key in ("table", "defaults", "batching")}
    job |= {"output": str(output), "model": {"path": str(MODEL), "device": "cpu"}}
    ended = command("plan", str(write_job(output / "job.yaml", job)), exits=0)
    return dict(re.findall(r"(done|to render) +(\d+)", ended.stdout))


def test_rows_that_the_former_version_recorded_are_done_and_another_is_the_only_one_to_render(
    tmp_path: Path,
) -> None:
    output = shutil.copytree(REFERENCES / "output", tmp_path / "output")
    claim, table = output / "job.json", output / "table.csv"
    values = json.loads(claim.read_text("utf-8"))
    values["job"]["table"] = str(table)  # where it lies now
    claim.write_text(json.dumps(values), encoding="utf-8")
    assert planned(output) == {"done": "5", "to render": "0"}
    table.write_text(table.read_text("utf-8") + "a blue triangle,6,2,,,,,5\n", encoding="utf-8")
    assert planned(output) == {"done": "5", "to render": "1"}


def test_an_output_with_drafts_and_a_failure_is_read_as_before(tmp_path: Path) -> None:
    place = shutil.copytree(REFERENCES / "output_with_drafts", tmp_path / "output")
    found = framefleet.status(place)
    assert (found.num_rows, found.num_done, found.num_failed, found.num_left) == (2, 2, 0, 0)
    drafts = found.inner["drafts"]
    assert (drafts.num_rows, drafts.num_done, drafts.num_failed, drafts.num_left) == (4, 3, 1, 0)
    (failure,) = framefleet.failures(place)
    assert (failure.seed, failure.message) == (3, "this row cannot be rendered")
    for folder in (place, place / "drafts"):
        assert framefleet.verify(folder, files=True).is_well
    assert command("gallery", str(place)).exit_code == 0
