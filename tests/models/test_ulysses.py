"""`placement: ulysses` with two processes on a CPU: the bits of one, or a refusal; they fail together."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HeliosTransformer3DModel

from framefleet import Audit, Batching, Clip, Failure, Model, Renderer, Request, load_model
from framefleet.cluster.worker.blame import culprit_of
from framefleet.pipeline.errors import BrokenWorker, ModelError, RowError
from framefleet.plugins.placement import lockstep
from framefleet.plugins.placement.ulysses import Ulysses
from tests.tiny import SMALLEST, tiny
from tests.unaudited import all_outcomes
from tests.warm.process import start
from tools.placements import narrow

SIZE = {"height": 64, "width": 64, "num_frames": 5}
DEMO = Path(__file__).parents[2] / "plugins/demo/shapes/model"  # its denoiser has three heads
_TWO: dict[str, Any] = {"placement": {"type": "ulysses", "devices": 2}}
TOO_SMALL = {"height": 16, "width": 16, "num_frames": 5}  # a rank has so few tokens that kernels differ


def rows(num: int = 3, size: dict[str, int] = SIZE) -> list[Request]:
    return [
        Request(
            arguments={
                **size,
                "prompt": ("a red ball", "a blue cube on a table")[seed % 2],
                "num_inference_steps": 2 + seed % 2,
                "max_sequence_length": 32,
            },
            seed=seed,
        )
        for seed in range(num)
    ]


def renderer(model: Model, mode: str = "exact") -> Renderer:
    batching = Batching(mode=mode, max_rows=4, min_gain=0, remember=False)  # type: ignore[arg-type]
    return Renderer(model, batching, audit=Audit(every=0))


def frames(model: Model, requests: list[Request]) -> dict[str, str]:
    outcomes = list(renderer(model).render(requests, progress=False))
    return {one.row_id: one.frames_sha256 if isinstance(one, Clip) else repr(one.error) for one in outcomes}


@pytest.fixture(scope="module")
def alone() -> Model:
    return load_model(tiny("wan"), dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def placed() -> Iterator[Model]:
    model = load_model(tiny("wan"), dtype="fp32", device="cpu", **_TWO)
    yield model
    placer(model).close()
    assert not ranks()


def placer(model: Model) -> Ulysses:
    assert isinstance(model.placer, Ulysses)
    return model.placer


def ranks() -> list[int]:
    """Return the processes that compute with this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and b"framefleet.plugins.placement.rank" in command:
            found.append(int(stat.parent.name))
    return found


def test_mixed_rows_have_the_bits_and_row_ids_of_one_process(alone: Model, placed: Model) -> None:
    assert frames(placed, rows()) == frames(alone, rows())
    assert len(ranks()) == 1
    assert placed.environment["placement"] == "ulysses"
    assert placed.settings.numerics("exact") == alone.settings.numerics("exact")


@pytest.mark.parametrize("num", [4, 2])
def test_more_ranks_and_two_that_share_three_heads_have_the_bits_of_one_process(
    num: int, tmp_path: Path
) -> None:
    folder, requests = DEMO, rows(1)
    if num == 4:
        folder, requests = narrow("wan", tmp_path / "model"), rows(2)
    model = load_model(folder, dtype="fp32", device="cpu", placement={"type": "ulysses", "devices": num})
    try:
        found = frames(model, requests)
        assert len(ranks()) == num - 1
    finally:
        placer(model).close()
    assert found == frames(load_model(folder, dtype="fp32", device="cpu"), requests)


def test_a_model_of_fewer_blocks_than_its_class_plans_for_has_the_bits_of_one_process() -> None:
    size = {"height": 64, "width": 64, "num_inference_steps": 2}
    row = Request(arguments=SMALLEST["helios"] | size | {"prompt": "a red ball"}, seed=1)
    model = load_model(tiny("helios"), dtype="fp32", device="cpu", **_TWO)
    try:
        together = frames(model, [row])
    finally:
        placer(model).close()
    assert together == frames(load_model(tiny("helios"), dtype="fp32", device="cpu"), [row])


def test_a_model_of_more_blocks_than_its_class_plans_for_is_refused(placed: Model) -> None:
    config = json.loads((tiny("helios") / "transformer/config.json").read_text())
    with torch.device("meta"):
        network = HeliosTransformer3DModel.from_config(config | {"num_layers": 41})
    with pytest.raises(ModelError, match=r"ends before blocks\.40\.attn1"):
        placer(placed).check_denoisers({"transformer": network}, 2)


def test_two_models_take_turns_and_closing_one_leaves_the_other(placed: Model, alone: Model) -> None:
    expected = frames(alone, rows(1))
    other = load_model(tiny("wan"), dtype="fp32", device="cpu", **_TWO)
    try:
        assert frames(placed, rows(1)) == frames(other, rows(1)) == expected
        own = ranks()
        placer(placed).close()
        assert frames(other, rows(1)) == expected
        assert ranks() == own and len(own) == 1
    finally:
        placer(other).close()
    assert not ranks()


def test_rows_that_would_differ_are_refused_with_the_module_and_fast_renders_them(placed: Model) -> None:
    (refused,) = renderer(placed).render(rows(1, TOO_SMALL), progress=False)
    assert not isinstance(refused, Clip) and isinstance(refused.error, RowError)
    assert "first in transformer.blocks.0" in str(refused.error)
    (clip,) = renderer(placed, "fast").render(rows(1, TOO_SMALL), progress=False)
    assert isinstance(clip, Clip)


@pytest.mark.parametrize("when", ["idle", "mid-step"])
def test_a_killed_rank_breaks_the_worker_and_leaves_nothing(when: str, placed: Model, alone: Model) -> None:
    frames(placed, rows(1))
    (rank,) = ranks()
    made = renderer(placed)
    made.submit(rows(1)[0], "0" * 32)
    if when == "mid-step":
        assert not made.step() and not made.step()
    os.kill(rank, signal.SIGKILL)
    failure = ended(made)
    assert culprit_of(failure.error).blame == "worker" and not ranks()
    placer(placed)._ranks._is_broken = False  # as in a new process
    judged = renderer(placed).render_plainly(rows(1)[0], "0" * 32)
    assert isinstance(judged, Clip) and not ranks()  # on one device
    assert frames(placed, rows(1)) == frames(alone, rows(1))


def ended(made: Renderer) -> Failure:
    """Render the only row of a renderer; return how it failed for a rank."""
    (failure,) = all_outcomes(made)
    assert isinstance(failure, Failure) and isinstance(failure.error, BrokenWorker)
    return failure


def test_a_rank_that_hangs_breaks_the_worker_and_is_ended(
    placed: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    placer(placed).close()
    monkeypatch.setattr(lockstep, "TIMEOUT", timedelta(seconds=15))
    frames(placed, rows(1))
    (connection,) = placer(placed)._ranks._connections
    for content in (b"transformer", pickle.dumps(_Sleep())):  # a call whose arguments are never there
        connection.send_bytes(content)
    made = renderer(placed)
    made.submit(rows(1)[0], "0" * 32)
    assert "has not answered" in str(ended(made).error) and not ranks()
    placer(placed)._ranks._is_broken = False  # as in a new process


class _Sleep:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return time.sleep, (600,)


def test_a_row_for_which_memory_runs_out_is_tried_again_by_a_new_group(placed: Model, alone: Model) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("out of memory")

    frames(placed, rows(1))
    (before,) = ranks()
    placer(placed)._ranks.twins["transformer"].forward = full
    assert frames(placed, rows(1)) == frames(alone, rows(1))
    (after,) = ranks()
    assert after != before


def test_changed_weights_reach_all_ranks(placed: Model, alone: Model) -> None:
    biases = [next(one.networks()["transformer"].parameters()) for one in (placed, alone)]
    before = biases[0].detach().clone()
    with torch.no_grad():
        try:
            for bias in biases:
                bias.mul_(1.5)
            assert frames(placed, rows(1)) == frames(alone, rows(1))
        finally:
            for bias in biases:
                bias.copy_(before)


def test_ranks_end_with_a_process_that_is_killed() -> None:
    program = """
import signal
from framefleet import load_model
from tests.models.test_ulysses import frames, ranks, rows
from tests.tiny import tiny
model = load_model(tiny("wan"), dtype="fp32", device="cpu", placement={"type": "ulysses", "devices": 2})
frames(model, rows(1))
print("ranks", *ranks(), flush=True)
signal.pause()
"""
    process = start("-c", program)
    assert process.stdout is not None
    line = next(line for line in iter(process.stdout.readline, "") if line.startswith("ranks"))
    (rank,) = map(int, line.split()[1:])
    ending = os.pidfd_open(rank)
    os.kill(rank, signal.SIGSTOP)  # and even one that hangs
    process.kill()
    assert select.select([ending], [], [], 240)[0]
    os.close(ending)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wan", {"placement": "ulysses"}, "does not say how many processes"),
        ("wan", _TWO | {"fuse_qkv": True}, "fuse_qkv"),
        ("sd", _TWO, "no context parallel plan for unet"),
        *((name, _TWO, "plan for the attention mask of transformer") for name in ("ltx", "ltx2")),
        ("flux_controlnet", _TWO, "what a ControlNet adds"),
        ("wan", {"placement": "components"}, "needs several GPUs"),
        ("wan", {"placement": {"type": "ulysses", "devices": 4}}, "has 2 attention heads"),
        ("wan", {"placement": "ulysses+components"}, "needs several GPUs"),
        ("wan", {"placement": {"type": "ulysses", "devices": 3, "ranks": 2}}, "ulysses takes no ranks"),
        ("wan", {"placement": "ulyses"}, "there is no such placement\nhint: did you mean 'ulysses'"),
        ("wan", {"placement": {"type": "ulysses", "devices": 1}}, "placement.devices is 1"),
    ],
)
def test_what_cannot_be_placed_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(tiny(name), device="cpu", **settings)
