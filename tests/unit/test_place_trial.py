"""Whether a machine computes is found by a child process. Programs that die stand in for a sick processor."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from framefleet import load_model
from framefleet.cluster.fleet.losses import cause_of_loss
from framefleet.cluster.worker.messages import Hello, Loading
from framefleet.cluster.worker.worker import Worker
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.lanes import setup_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model import place_trial
from framefleet.pipeline.model.place_trial import prove
from framefleet.pipeline.rows.identity import LaneKey
from tests.jobs import job_values, prompt_rows, write_table
from tests.own_environment import own_environment
from tests.tiny import tiny

DIES = """
import os, signal, sys
with open({starts!r}, "a") as starts:
    print(*sys.argv[1:], file=starts)
if {condition}:
    os.kill(os.getpid(), signal.{name})
"""
UNFIXED = "'ONEDNN_MAX_CPU_ISA' not in os.environ"


@pytest.fixture(autouse=True)
def _own_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    with own_environment():
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
        yield


def sick(monkeypatch: pytest.MonkeyPatch, folder: Path, *, name: str = "SIGILL", condition: str) -> Path:
    """Have the trial die so; return the file that has a line for each start of it."""
    starts = folder / "starts"
    program = folder / "program.py"
    program.write_text(DIES.format(starts=str(starts), name=name, condition=condition))
    monkeypatch.setattr(place_trial, "PROGRAM", program)
    return starts


def test_a_sound_machine_computes_in_what_models_use() -> None:
    prove("cpu", ["bf16", "fp16"])
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


def test_a_processor_that_dies_of_sigill_gets_the_known_fix_and_it_is_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = sick(monkeypatch, tmp_path, condition=UNFIXED)
    for _ in range(2):  # two workers
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
        with caplog.at_level(logging.WARNING):
            prove("cpu", ["bf16", "fp32"])
        assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_BF16"
    assert starts.read_text().splitlines() == ["cpu bf16"] * 2, "once without the fix and once with it"
    assert caplog.text.count("ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16") == 2


@pytest.mark.parametrize(
    ("name", "num_starts", "said"),
    [("SIGILL", 2, "SIGILL, also with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16"), ("SIGSEGV", 1, "SIGSEGV")],
)
def test_a_machine_that_no_fix_helps_is_refused_by_name_and_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, num_starts: int, said: str
) -> None:
    starts = sick(monkeypatch, tmp_path, name=name, condition="True")
    with pytest.raises(FleetError) as caught:
        prove("cpu", ["bf16"])
    assert caught.value.problem == (
        f"{platform.node()} cannot compute in bf16 on cpu: a trial ended with {said}"
    )
    assert "dtype: fp32" in caught.value.fix
    assert len(starts.read_text().splitlines()) == num_starts
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


def test_where_torch_refuses_its_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys\nsys.exit('a warning\\nRuntimeError: no kernel image')")
    monkeypatch.setattr(place_trial, "PROGRAM", program)
    with pytest.raises(FleetError, match="ended with RuntimeError: no kernel image"):
        prove("cuda", ["fp16"])


def test_fp32_on_a_cpu_takes_no_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = sick(monkeypatch, tmp_path, condition="True")
    load_model(tiny("wan"), device="cpu", dtype="fp32")
    assert not starts.exists()


def test_workers_that_start_together_wait_for_one_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starts = sick(monkeypatch, tmp_path, condition="__import__('time').sleep(0.5)")
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: prove("cpu", ["bf16"]), range(4)))
    assert len(starts.read_text().splitlines()) == 1


def test_a_model_is_loaded_with_the_fix_and_its_records_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sick(monkeypatch, tmp_path, condition=UNFIXED)
    model = load_model(tiny("wan"), device="cpu", dtype="bf16")
    assert model.environment["onednn_max_cpu_isa"] == "AVX512_CORE_BF16"


def test_a_model_is_not_loaded_where_rows_would_kill_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sick(monkeypatch, tmp_path, condition="True")
    with pytest.raises(FleetError, match="SIGILL"):
        load_model(tiny("wan"), device="cpu", dtype={"default": "fp32", "transformer": "bf16"})


def worker(folder: Path) -> Worker:
    table = write_table(folder / "t.parquet", prompt_rows(1))
    model = {"path": str(tiny("wan")), "dtype": "bf16", "device": "cpu"}
    values = job_values(table, folder / "out", address=None) | {"model": model}
    return Worker(setup_of(resolve_job(load_job(values), Callback()), LaneKey()))


def started(worker: Worker) -> Hello:
    while isinstance(answer := worker.start(), Loading):
        """It is called again, as a driver does."""
    return answer


def test_a_worker_on_a_sick_machine_is_refused_before_it_gets_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sick(monkeypatch, tmp_path, condition="True")
    with pytest.raises(FleetError, match="SIGILL") as caught:
        started(worker(tmp_path))
    lost = cause_of_loss(RayTaskError("start", "", caught.value), is_ready=False)
    assert (lost.kind, lost.error) == ("refused", caught.value)


def test_a_worker_tells_its_driver_of_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sick(monkeypatch, tmp_path, condition=UNFIXED)
    hello = started(fixed := worker(tmp_path))
    assert hello.environment["onednn_max_cpu_isa"] == "AVX512_CORE_BF16"
    report = fixed.exchange((), drain=True)
    assert any("crashes on bf16, but not with ONEDNN_MAX_CPU_ISA" in remark.text for remark in report.remarks)
