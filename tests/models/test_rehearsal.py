"""The largest row is rehearsed before the first one: on the stand-in for CUDA, in processes of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from framefleet import Audit, Batching, Renderer, load_model
from framefleet.pipeline.render.probe.probe import input_shape
from framefleet.pipeline.render.remembered.rehearsed import rehearsed
from framefleet.pipeline.request import Request
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
from tests.standin.faulted import plain, rows
from tests.tiny import tiny

model = load_model(tiny("wan"), dtype="fp32", device="cuda")

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
assert any(clip.had_company for clip in ended.values())
assert 0 < first.idle.seconds()["rehearsal"] < first.idle.elapsed_s
assert first._rehearsal.num_made == 1
again = renderer()
assert again._rehearsal.num_made == 0 and again._rehearsal._memory == first._rehearsal._memory
assert renderer(remember=False)._rehearsal.num_made == 1
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
gpus.devices[0].capacity = (torch.cuda.memory_allocated() + measured.peak_bytes) // 2
full = renderer(remember=True)
assert full._rehearsal.num_made == 1  # what is remembered says that it does not fit
called = []
model.denoisers()["transformer"].register_forward_pre_hook(lambda *_: called.append(1))
failures = list(full.render(rows()))
assert [type(failure.error) for failure in failures] == [OutOfMemory] * 2, failures
assert "rehearsal" in str(failures[0].error) and not called
smaller = replace(rows()[0], arguments={**rows()[0].arguments, "num_frames": 1})
(clip,) = full.render([smaller])
assert isinstance(clip, Clip) and called, clip
"""
PROGRAMS = {"bits": BITS, "capacity": CAPACITY, "too large": TOO_LARGE}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_largest_row_is_rehearsed_once_and_says_what_fits(program: str) -> None:
    process = start("-c", BEGIN + program)
    printed, said = process.communicate()
    assert process.returncode == 0, (printed, said)


def test_nothing_is_rehearsed_on_a_cpu() -> None:
    renderer = Renderer(load_model(tiny("wan"), dtype="fp32"), Batching(), audit=Audit(every=0))
    renderer.rehearse(renderer._check(rows()[0], 0)[0])
    assert renderer._rehearsal.num_made == 0
    assert not Path(os.environ["FRAMEFLEET_CACHE"], "probes", "memory").exists()


@pytest.mark.parametrize(
    ("given", "steps"),
    [({"num_inference_steps": 50}, 1), ({"num_inference_steps": 50, "strength": 0.3}, 4), ({}, None)],
)
def test_a_rehearsal_takes_one_step_and_is_of_the_rows_shape(given: dict[str, Any], steps: int) -> None:
    request = Request(arguments={"height": 64, "sigmas": [1.0, 0.5], "prompt": "a red ball", **given})
    made = rehearsed(request)
    assert made.arguments.get("num_inference_steps") == steps
    assert "sigmas" not in made.arguments
    other = Request(arguments=json.loads(json.dumps({**request.arguments, "prompt": "another"})), seed=7)
    assert input_shape(rehearsed(other)) == input_shape(made)
