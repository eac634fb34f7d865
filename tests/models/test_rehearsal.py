"""The largest row is rehearsed before the first one: on the stand-in for CUDA, in processes of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from framefleet import Audit, Batching, Renderer, Request, load_model
from framefleet.pipeline.request import one_step
from framefleet.pipeline.rows.identity import input_shape
from tests.standin.faulted import rows
from tests.tiny import tiny
from tests.warm.process import start

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")

BEGIN = """
from dataclasses import replace
import gc, torch
from tests.standin.install import install
gpus = install(1)
from framefleet import Audit, Batching, Clip, Renderer, load_model
from framefleet.pipeline.errors import OutOfMemory
from framefleet.pipeline.render.rehearsal import Rehearsal
from tests.standin.faulted import plain, rows
from tests.tiny import tiny

model = load_model(tiny("wan"), dtype="fp32", device="cuda")
made = []
measure = Rehearsal._measured
Rehearsal._measured = lambda self, *given: (made.append(self), measure(self, *given))[1]

def renderer(**batching):
    found = Renderer(model, Batching(min_gain=0, **batching), audit=Audit(every=0))
    found.rehearse(found._check(rows()[0], 0)[0])
    return found
"""
# More rows than there were, in larger forwards, and each as its plain call gives it.
BITS = """
expected = plain(model)
first = renderer()
ended = {str(clip.request.seed): clip for clip in first.render(rows())}
assert {seed: clip.frames_sha256 for seed, clip in ended.items()} == expected
assert any(clip.was_batched for clip in ended.values())
assert made == [first._rehearsal]
again = renderer()
assert len(made) == 1 and again._rehearsal._memory == first._rehearsal._memory
assert renderer(remember=False)._rehearsal is made[1]
"""
CAPACITY = """
measured = renderer()._rehearsal._memory
gc.collect()
held = torch.cuda.memory_allocated()
assert held < measured.peak_bytes and measured.step_bytes > 0
many = [replace(row, seed=seed) for seed in range(4) for row in rows()[:1]]
free = max(measured.peak_bytes - held, 3 * measured.step_bytes)  # for one decoding, and for few rows
gpus.devices[0].capacity = held + free + measured.step_bytes
fitting = (free + measured.step_bytes) // measured.step_bytes
largest = renderer(max_rows=64)
assert largest.capacity <= 2 * fitting < 64, (largest.capacity, fitting)
assert Renderer(model, Batching(min_gain=0, max_rows=64)).capacity == 128
assert all(isinstance(clip, Clip) for clip in largest.render(many))
"""
TOO_LARGE = """
measured = renderer()._rehearsal._memory
gpus.devices[0].capacity = measured.peak_bytes - (measured.peak_bytes - torch.cuda.memory_allocated()) // 8
full = renderer(remember=True)
assert full._rehearsal in made  # what is remembered says that it does not fit
called = []
model.denoisers()["transformer"].register_forward_pre_hook(lambda *_: called.append(1))
failures = list(full.render(rows()))
assert [type(failure.error) for failure in failures] == [OutOfMemory] * 2, failures
assert "rehearsal" in str(failures[0].error) and not called
smaller = replace(rows()[0], arguments={**rows()[0].arguments, "num_frames": 1})
(clip,) = full.render([smaller])
assert isinstance(clip, Clip) and called, clip
"""
# A worker's first row is a small one of the job's two sizes; then the card is too small for the large one.
JOB = """
from contextlib import closing
from pathlib import Path
from framefleet import plan
from framefleet.cluster.worker.messages import Assignment, Loading
from framefleet.cluster.worker.worker import Worker
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.lanes import setup_of
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.jobs import job_values, prompt_rows, write_table

table = prompt_rows(3)
for row, frames in zip(table, (1, 5, 1)):
    row["num_frames"] = frames
values = job_values(write_table(Path("FOLDER/t.parquet"), table), "FOLDER/out")
values["model"] = {"path": str(tiny("wan")), "dtype": "fp32", "device": "cuda"}
assert plan(values, gpu_memory="24GB").memory.measured_gb is None

def told(largest, requests, room=None):
    worker = Worker(setup_of(resolved, LaneKey()))
    while isinstance(worker.start(), Loading):
        pass
    held.append(torch.cuda.memory_allocated())
    if room:
        gpus.devices[0].capacity = held[-1] + room
    given = [
        Assignment(row_id=str(number), request=one, attempt=1, largest=largest)
        for number, one in enumerate(requests)
    ]
    reports = [worker.exchange(given)]
    while sum(len(report.rendered) + len(report.failed) for report in reports) < len(given):
        reports.append(worker.exchange(()))
    reports.append(worker.exchange((), drain=True))
    worker._render.join()
    failed = [failed for report in reports for failed in report.failed]
    return [stored for report in reports for stored in report.rendered], failed

with closing(resolve_job(load_job(values), Callback())) as resolved, closing(RowIndex()) as index:
    survey = survey_rows(resolved, index, Callback())
    small, large = survey.examples.values()
    largest = survey.largest()
    assert largest == large and large.arguments["num_frames"] == 5
    held = []
    rendered, failed = told(largest, [small])
    assert len(rendered) == 1 and not failed, failed
    memory = plan(values, gpu_memory="24GB").memory
    assert memory.measured_gb > 1 and memory.fits, memory
    row_bytes = round((memory.measured_gb - 1) * 1e9) - held[0]
    rendered, failed = told(largest, [small, large], room=row_bytes * 7 // 8)
    assert [(one.row_id, one.blame, one.is_final) for one in failed] == [("1", "memory", False)], failed
    assert failed[0].room > 0 and "rehearsal" in failed[0].message, failed
    assert [stored.record.row_id for stored in rendered] == ["0"]
"""
PROGRAMS = {"bits": BITS, "capacity": CAPACITY, "too large": TOO_LARGE, "job": JOB}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_largest_row_is_rehearsed_once_and_says_what_fits(program: str, tmp_path: Path) -> None:
    process = start("-c", BEGIN + program.replace("FOLDER", str(tmp_path)))
    printed, said = process.communicate()
    assert process.returncode == 0, (printed, said)


def test_nothing_is_rehearsed_on_a_cpu() -> None:
    renderer = Renderer(load_model(tiny("wan"), dtype="fp32"), Batching(), audit=Audit(every=0))
    renderer.rehearse(renderer._check(rows()[0], 0)[0])
    assert renderer._rehearsal._memory is None
    assert not Path(os.environ["FRAMEFLEET_CACHE"], "probes", "memory").exists()


@pytest.mark.parametrize(
    ("given", "steps"),
    [({"num_inference_steps": 50}, 1), ({"num_inference_steps": 50, "strength": 0.3}, 4), ({}, None)],
)
def test_a_rehearsal_takes_one_step_and_is_of_the_rows_shape(given: dict[str, Any], steps: int) -> None:
    request = Request(arguments={"height": 64, "sigmas": [1.0, 0.5], "prompt": "a red ball", **given})
    made = one_step(request)
    assert made.arguments.get("num_inference_steps") == steps
    assert "sigmas" not in made.arguments
    other = Request(arguments=json.loads(json.dumps({**request.arguments, "prompt": "another"})), seed=7)
    assert input_shape(one_step(other)) == input_shape(made)
