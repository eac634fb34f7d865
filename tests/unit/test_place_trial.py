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

from framefleet import FleetError, load_model
from framefleet.cluster.fleet.losses import cause_of_loss
from framefleet.cluster.worker.messages import Hello, Loading
from framefleet.cluster.worker.worker import Worker
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.lanes import setup_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model import place_trial
from framefleet.pipeline.model.place_trial import prove_place
from framefleet.pipeline.rows.identity import LaneKey
from tests.jobs import job_values, prompt_rows, write_table
from tests.own_environment import own_environment
from tests.tiny import tiny

SIGILL = "os.kill(os.getpid(), signal.SIGILL)"
UNFIXED = "'ONEDNN_MAX_CPU_ISA' not in os.environ"


@pytest.fixture(autouse=True)
def _own_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    with own_environment():
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
        yield


def sick(monkeypatch: pytest.MonkeyPatch, folder: Path, ends: str, *, condition: str = "True") -> Path:
    """Have the trial end so; return the file that has a line for each start of it."""
    starts, program = folder / "starts", folder / "program.py"
    lines = [f"print(*sys.argv[1:], file=open({str(starts)!r}, 'a'))", f"if {condition}: {ends}"]
    program.write_text("import os, signal, sys, time\n" + "\n".join(lines))
    monkeypatch.setattr(place_trial, "PROGRAM", program)
    return starts


def test_a_sound_machine_computes_in_what_models_use() -> None:
    prove_place("cpu", ["bf16", "fp16"])
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


def test_a_processor_that_dies_of_sigill_gets_the_known_fix_and_it_is_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = sick(monkeypatch, tmp_path, SIGILL, condition=UNFIXED)
    for _ in range(2):  # two workers
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
        with caplog.at_level(logging.WARNING):
            prove_place("cpu", ["bf16", "fp32"])
        assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_BF16"
    assert starts.read_text().splitlines() == ["cpu bf16"] * 2, "once without the fix and once with it"
    assert caplog.text.count("ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16") == 2


@pytest.mark.parametrize(
    ("ends", "num_starts", "said"),
    [
        (SIGILL, 2, "SIGILL, also with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 1, "SIGSEGV"),
        ("sys.exit('a warning\\nRuntimeError: no kernel image')", 1, "RuntimeError: no kernel image"),
    ],
)
def test_a_machine_that_no_fix_helps_is_refused_by_name_and_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends: str, num_starts: int, said: str
) -> None:
    starts = sick(monkeypatch, tmp_path, ends)
    with pytest.raises(FleetError) as caught:
        prove_place("cpu", ["bf16"])
    name = platform.node()
    assert caught.value.problem == f"{name} cannot compute in bf16 on cpu: a trial ended with {said}"
    assert "dtype: fp32" in caught.value.fix
    assert len(starts.read_text().splitlines()) == num_starts
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


def test_fp32_on_a_cpu_takes_no_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = sick(monkeypatch, tmp_path, SIGILL)
    load_model(tiny("wan"), device="cpu", dtype="fp32")
    assert not starts.exists()


def test_workers_that_start_together_need_one_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = sick(monkeypatch, tmp_path, "time.sleep(0.5)")
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: prove_place("cpu", ["bf16"]), range(4)))
    assert len(starts.read_text().splitlines()) == 1


def test_a_model_is_not_loaded_where_rows_would_die(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sick(monkeypatch, tmp_path, SIGILL)
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


def test_a_worker_on_a_sick_machine_gets_no_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sick(monkeypatch, tmp_path, SIGILL)
    with pytest.raises(FleetError, match="SIGILL") as caught:
        started(worker(tmp_path))
    lost = cause_of_loss(RayTaskError("start", "", caught.value), is_ready=False)
    assert (lost.kind, lost.error) == ("refused", caught.value)


def test_a_worker_tells_its_driver_of_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sick(monkeypatch, tmp_path, SIGILL, condition=UNFIXED)
    hello = started(fixed := worker(tmp_path))
    assert hello.environment["onednn_max_cpu_isa"] == "AVX512_CORE_BF16"
    report = fixed.exchange((), drain=True)
    assert any("crashes on bf16, but not with ONEDNN_MAX_CPU_ISA" in remark.text for remark in report.remarks)
