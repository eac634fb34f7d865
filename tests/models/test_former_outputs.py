"""What earlier versions wrote goes on: an output is resumed under its row_ids.

references/output: five rows that it rendered. references/output_with_drafts: four drafts, of which one failed
while the best of the others were rendered in full.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import framefleet
from framefleet.plugins.demo.prepare import MODEL
from tests.commands import command
from tests.jobs import write_job

REFERENCES = Path(__file__).parents[1] / "references"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return a copy of the stored output, which names its table where that lies now."""
    shutil.copytree(REFERENCES / "output", tmp_path / "output")
    claim = tmp_path / "output" / "job.json"
    values = json.loads(claim.read_text("utf-8"))
    values["job"]["table"] = str(REFERENCES / "output" / "table.csv")
    claim.write_text(json.dumps(values), encoding="utf-8")
    return tmp_path / "output"


def done_and_pending(output: Path) -> tuple[int, int]:
    """Return how many rows `framefleet plan` finds done, and how many it would render."""
    written = json.loads((output / "job.json").read_text("utf-8"))["job"]
    job = {key: written[key] for key in ("table", "defaults", "batching")}
    path = write_job(
        output / "job.yaml", job | {"output": str(output), "model": {"path": str(MODEL), "device": "cpu"}}
    )
    planned = command("plan", str(path))
    assert planned.exit_code == 0, planned.stderr
    counts = dict(re.findall(r"(done|to render) +(\d+)", planned.stdout))
    return int(counts["done"]), int(counts["to render"])


def test_an_output_of_the_former_version_is_done(output: Path) -> None:
    assert done_and_pending(output) == (5, 0)


def test_a_row_that_the_former_version_did_not_record_is_the_only_one_to_render(output: Path) -> None:
    table = output / "table.csv"
    table.write_text(table.read_text("utf-8") + "a blue triangle,6,2,,,,,5\n", encoding="utf-8")
    claim = output / "job.json"
    claim.write_text(claim.read_text("utf-8").replace(str(REFERENCES / "output"), str(output)), "utf-8")
    assert done_and_pending(output) == (5, 1)


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
