"""Models that do not pad their prompts, on a fleet."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from statistics import mean

import pytest

import framefleet
from framefleet import load_model
from framefleet.cluster.driver.feed import Feed
from tests.jobs import job_values, records_of, write_table
from tests.tiny import tiny
from tests.unequal_prompts import plain_digest, requests_of, unequal_rows


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "takes_lists"), [pytest.param("z_image", True, marks=pytest.mark.long), ("qwen_image", False)]
)
def test_two_workers_share_forwards_of_unequal_prompts(
    name: str,
    takes_lists: bool,
    tmp_path: Path,
    ray_cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of equal ones alone, which the driver brings together, where a network does not take rows as lists."""
    heed = Feed.heed_lengths

    def heeded(feed: Feed, lengths: bytes) -> None:
        """Wait until prompts can be counted: on a busy machine rows may be done before."""
        is_first = feed._prompt_lengths is None
        heed(feed, lengths)
        while is_first and feed._prompt_lengths and not feed._prompt_lengths._box.has_message():
            time.sleep(0.1)

    monkeypatch.setattr(Feed, "heed_lengths", heeded)
    rows = unequal_rows(name, 240)
    job = job_values(
        write_table(tmp_path / "prompts.parquet", rows),
        tmp_path / "out",
        model=name,
        batching={"max_rows": 4, "min_gain": 0},
        fleet={"workers": 2, "gpus_per_worker": 0, "address": ray_cluster},
    )
    job["defaults"] = {}
    job["model"] = {"path": str(tiny(name)), "dtype": "fp32"}
    with caplog.at_level(logging.INFO, "framefleet"):
        assert framefleet.render(job).done == len(rows)
    records = records_of(tmp_path / "out")
    assert {record["worker"] for record in records} == {"worker-0", "worker-1"}
    assert ("batching rows with equal prompt lengths" in caplog.text) is not takes_lists
    assert mean(record["batch_size"] for record in records) > 1.5  # of Qwen 2.3, and 2.1 in no order
    found = {record["seed"]: record["frames_sha256"] for record in records}
    model = load_model(tiny(name), dtype="fp32")
    model.pipe.set_progress_bar_config(disable=True)
    for request in requests_of(rows)[::32]:
        assert found[request.seed] == plain_digest(model, request)
