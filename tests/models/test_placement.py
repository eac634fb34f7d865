"""`placement: components` and `layers` on two devices of the stand-in: the bits of one device."""

from __future__ import annotations

import pytest
import torch

from tests.warm.process import start

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")

SET_UP = """
import pytest, torch
torch.set_num_threads(1)
from tests.standin.install import install
gpus = install({num_gpus})
from framefleet import Audit, Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.memory import is_out_of_memory
from tests.tiny import SMALLEST, tiny

def rows(name, num_steps=(2, 3, 3, 2)):
    arguments = {**SMALLEST.get(name, {}), "prompt": "a red ball"} | SIZE
    return [
        Request(arguments={**arguments, "num_inference_steps": steps}, seed=seed)
        for seed, steps in enumerate(num_steps)
    ]

def model(name, placement=None):
    return load_model(tiny(name), dtype="fp32", device="cuda", placement=placement)

def renderer(made, max_rows=4):
    return Renderer(made, Batching(max_rows=max_rows, min_gain=0, remember=False), audit=Audit(every=0))

def frames(outcomes):
    outcomes = list(outcomes)
    failed = [one.traceback for one in outcomes if not isinstance(one, Clip)]
    assert not failed, failed
    return {one.row_id: one.frames_sha256 for one in outcomes}

def devices_of(network):
    return {str(weight.device) for weight in network.parameters()}

SIZE = {}
NAME, KIND = {name!r}, {kind!r}
"""
EQUAL = """
expected = frames(renderer(model(NAME)).render(rows(NAME)))
placed = model(NAME, {"type": KIND, "devices": 2})
networks = placed.networks()
denoiser = next(iter(placed.denoisers()))
if KIND == "layers":
    assert devices_of(networks[denoiser]) == {"cuda:0", "cuda:1"}
else:
    assert devices_of(networks[denoiser]) == {"cuda:0"}
    assert {"cuda:1"} in [devices_of(network) for network in networks.values()]
clips = list(renderer(placed).render(rows(NAME)))
assert frames(clips) == expected, "bits or row_ids"
assert placed.environment["placement"] == KIND
assert max(clip.batch_size for clip in clips) > 1
"""
TOO_FEW = """
from framefleet.pipeline.errors import ModelError
for kind in ("components", "layers", "ulysses", "ulysses+components"):
    with pytest.raises(ModelError, match=kind.replace("+", ".") + " needs at least 2 GPUs, .* has 1"):
        model(NAME, kind)
assert not gpus.devices[0].used, "no weight is read"
"""
TOGETHER = """
SIZE = {"height": 64, "width": 64}  # with fewer tokens, products take other kernels
import os, subprocess, sys
from framefleet.plugins.placement.lockstep import Ranks
RANK = "from tests.standin.install import install; install(3); "
RANK += "from framefleet.plugins.placement.rank import main; main()"

def start(connection):
    return subprocess.Popen([sys.executable, "-c", RANK, str(os.getpid())], stdin=connection.fileno())

Ranks.start_process = staticmethod(start)
expected = frames(renderer(model(NAME)).render(rows(NAME)))
placed = model(NAME, {"type": KIND, "devices": 3, "ranks": 2})
devices = {name: devices_of(network) for name, network in placed.networks().items()}
denoisers = set(placed.denoisers())
assert all(devices[name] == {"cuda:0"} for name in denoisers), devices
assert "cuda:2" in set.union(*(devices[name] for name in devices.keys() - denoisers)), devices
assert frames(renderer(placed).render(rows(NAME))) == expected, "bits or row_ids"
assert placed.environment["placement"] == KIND
placed.placer.close()
"""
FULL = """
expected = frames(renderer(model(NAME)).render(rows(NAME)))
for index in (0, 1):
    placed = model(NAME, {"type": KIND, "devices": 2})
    made = renderer(placed)
    gpus.devices[index].sweep()
    gpus.devices[index].capacity = gpus.devices[index].used + ROOM
    outcomes = list(made.render(rows(NAME)))
    gpus.devices[index].capacity = 1 << 40
    errors = [one.error for one in outcomes if not isinstance(one, Clip)]
    assert all(is_out_of_memory(error) for error in errors), errors
    assert gpus.devices[index].num_ooms
    assert frames(made.render(rows(NAME))) == expected, "it goes on where there is room again"
"""
HANDED_OVER = """
(expected,) = frames(renderer(model(NAME), 1).render(rows(NAME)[1:2])).values()
placed = {"type": KIND, "devices": 2}
for first, then in ((placed, None), (None, placed)):
    giver, taker = (renderer(model(NAME, one), 1) for one in (first, then))
    (row,) = rows(NAME)[1:2]
    giver.submit(row, "0" * 32)
    for _ in range(3):
        assert not giver.step()
    (half,) = giver.drain()
    taker.submit(half.request, half.row_id, half.checkpoint)
    ended = []
    while taker.num_active:
        ended += taker.step()
    (clip,) = ended
    assert half.can_go_on and clip.frames_sha256 == expected, (first, then)
"""


def run(program: str, name: str, kind: str = "", num_gpus: int = 3) -> None:
    set_up = SET_UP.replace("{name!r}", repr(name)).replace("{kind!r}", repr(kind))
    process = start("-c", set_up.replace("{num_gpus}", str(num_gpus)) + program)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed


def test_a_process_with_too_few_gpus_says_so_before_it_reads_weights() -> None:
    run(TOO_FEW, "wan", num_gpus=1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wan", "components"),
        ("wan", "layers"),
        ("sdxl", "components"),
        ("ltx2", "layers"),
    ],
)
def test_mixed_batches_on_two_devices_have_the_bits_of_one(name: str, kind: str) -> None:
    run(EQUAL, name, kind)


def test_denoisers_of_two_ranks_and_encoders_on_another_device_have_the_bits_of_one() -> None:
    run(TOGETHER, "wan", "ulysses+components")


@pytest.mark.parametrize("kind", ["components", "layers"])
def test_memory_that_runs_out_on_either_device_changes_no_bit(kind: str) -> None:
    run("ROOM = 40_000\n" + FULL, "wan", kind)


@pytest.mark.parametrize("kind", ["components", "layers"])
def test_a_row_begun_on_two_devices_goes_on_on_one_and_the_other_way_round(kind: str) -> None:
    run(HANDED_OVER, "wan", kind)
