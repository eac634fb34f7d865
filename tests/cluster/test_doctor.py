"""`framefleet doctor` on clusters and stores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import framefleet
from framefleet.plugins.doctor import machine
from framefleet.plugins.doctor.doctor import Targets, checks_of
from framefleet.plugins.doctor.services import inspect_store
from tests.faulty_s3 import faulty_s3
from tests.servers import S3Server


@pytest.mark.parametrize("kind", ["unconditional", "heedless"])
def test_a_store_that_refuses_conditions_or_ignores_them_is_reported(s3_server: S3Server, kind: str) -> None:
    with faulty_s3(s3_server.endpoint, kind=kind) as proxy:
        options = {**s3_server.storage_options, "endpoint_url": proxy.endpoint}
        said = list(inspect_store(f"{s3_server.url}/run", options))
    refused, timed = said
    assert timed.state == "ok" or timed.text.startswith("slow: ")  # as other tests may make it
    assert refused.state == "warning"
    assert "two drivers" in refused.text and "conditional writes" in refused.fix


def test_every_machine_of_a_healthy_cluster_is_checked(
    ray_cluster: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diagnosis = framefleet.doctor(
        address=ray_cluster, store=s3_server.url, storage_options=s3_server.storage_options
    )
    late = f"no result after {machine.LIMIT_S:.0f} s"  # beside all others, on a busy machine
    assert all(one.text == late for one in diagnosis.results if one.state == "error"), diagnosis.results
    assert {one.check for one in diagnosis.results} == {*checks_of(Targets(store="")), "ports", "fleet"}
    assert max(one.seconds for one in diagnosis.results) <= 2 * machine.LIMIT_S
    (fleet,) = (one for one in diagnosis.results if one.check == "fleet")  # of all machines together
    assert fleet.text.startswith("room for ")
    assert len({one.machine for one in diagnosis.results} - {fleet.machine}) == 1
    texts = [one.text for one in diagnosis.results]
    alone = framefleet.doctor(
        address=ray_cluster, store=s3_server.url, storage_options=s3_server.storage_options, only=["store"]
    )
    assert alone.is_well, alone.results
    assert any(re.match(f"({re.escape(s3_server.url)}|slow): write ", one.text) for one in alone.results)
    assert "reaches Ray on every machine, and the driver" in texts
    assert "the same versions as on the driver's machine" in texts
    assert framefleet.doctor(address=ray_cluster, only=["ports"]).is_well


def test_a_job_whose_workers_fit_on_no_machine_is_warned_of(ray_cluster: str, tmp_path: Path) -> None:
    values = {"table": "t.csv", "output": str(tmp_path / "out"), "model": "org/name"}
    for gpus in (0, 1):
        job = values | {"fleet": {"address": ray_cluster, "gpus_per_worker": gpus}}
        results = [one for one in framefleet.doctor(job, only=["fleet"]).results if one.check == "fleet"]
        assert [one.state for one in results] == [("ok", "warning")[gpus]]
    assert "which needs 1 GPU " in results[0].text and "autoscaler" in results[0].fix
    (result,) = framefleet.doctor(values | {"fleet": {"gpus_per_worker": 64}}, only=["fleet"]).results
    assert (result.state, "fleet.gpus_per_worker is 64" in result.text) == ("error", True)


def test_a_cluster_that_is_not_there_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(framefleet.FramefleetError, match="no Ray cluster answers") as caught:
        framefleet.doctor(address="127.0.0.1:1")
    assert caught.value.exit_code == 3
