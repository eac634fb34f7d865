"""`placement: ulysses` with two processes on a CPU: the bits of one, or a refusal; they fail together."""

from __future__ import annotations

import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from framefleet.cluster.worker.blame import culprit_of
from framefleet.pipeline.errors import BrokenWorker, ModelError, RowError
from framefleet.pipeline.model import load
from framefleet.pipeline.model.numerics import Numerics
from framefleet.plugins.placement import lockstep
from framefleet.plugins.placement.lockstep import Weight
from framefleet.plugins.placement.ulysses import Ulysses
from tests.tiny import tiny
from tools.placements import narrow

SIZE = {"height": 64, "width": 64, "num_frames": 5}
DEMO = Path(__file__).parents[2] / "plugins/demo/shapes/model"  # its denoiser has three heads
TOO_SMALL = {"height": 16, "width": 16, "num_frames": 5}  # a rank has so few tokens that kernels differ


def rows(num: int = 3, size: dict[str, int] = SIZE) -> list[Request]:
    prompts = ("a red ball", "a blue cube on a table")
    return [
        Request(
            arguments={
                **size,
                "prompt": prompts[seed % 2],
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
    model = load_model(tiny("wan"), dtype="fp32", device="cpu", placement={"type": "ulysses", "devices": 2})
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


@pytest.mark.ci
def test_four_ranks_have_the_bits_of_one_process(tmp_path: Path) -> None:
    folder, before = narrow("wan", tmp_path / "model"), ranks()
    four = load_model(folder, dtype="fp32", device="cpu", placement={"type": "ulysses", "devices": 4})
    try:
        found = frames(four, rows(2))
        assert len(ranks()) == len(before) + 3  # others may have ranks of their own
    finally:
        placer(four).close()
    assert found == frames(load_model(folder, dtype="fp32", device="cpu"), rows(2))


def test_two_ranks_share_three_heads() -> None:
    prompt = {"prompt": "a red ball bounces on black", "num_inference_steps": 2, **SIZE}
    row = [Request(arguments=prompt, seed=1)]
    two = load_model(DEMO, dtype="fp32", device="cpu", placement={"type": "ulysses", "devices": 2})
    try:
        found = frames(two, row)
    finally:
        placer(two).close()
    assert found == frames(load_model(DEMO, dtype="fp32", device="cpu"), row)


@pytest.mark.parametrize("address", [0, 8, 20])
def test_a_rank_has_weights_at_addresses_as_the_worker(address: int) -> None:
    weight = torch.empty(256, dtype=torch.uint8)[address:][:32].view(torch.float32).view(2, 4)
    blank = Weight.of(weight).blank(weight.device)
    assert (blank.shape, blank.dtype, blank.is_contiguous()) == ((2, 4), torch.float32, True)
    assert (blank.data_ptr() - weight.data_ptr()) % 64 == 0


def test_without_a_placement_nothing_is_around_a_network(alone: Model) -> None:
    frames(alone, rows(1))
    assert alone.placer is None and "placement" not in alone.environment
    for network in alone.networks().values():
        assert not {"forward", "encode", "decode", "_hf_hook"} & vars(network).keys()


def test_the_judge_computes_on_one_device(placed: Model) -> None:
    placer(placed).close()
    outcome = renderer(placed).render_plainly(rows(1)[0], "0" * 32)
    assert isinstance(outcome, Clip) and not ranks()


def test_rows_that_would_differ_are_refused_with_the_module_and_fast_renders_them(placed: Model) -> None:
    (refused,) = renderer(placed).render(rows(1, TOO_SMALL), progress=False)
    assert not isinstance(refused, Clip) and isinstance(refused.error, RowError)
    assert "first in transformer.blocks.0" in str(refused.error)
    (clip,) = renderer(placed, "fast").render(rows(1, TOO_SMALL), progress=False)
    assert isinstance(clip, Clip)


@pytest.mark.parametrize("when", [pytest.param("idle", marks=pytest.mark.ci), "mid-step"])
def test_a_killed_rank_breaks_the_worker_and_leaves_nothing(when: str, placed: Model, alone: Model) -> None:
    frames(placed, rows(1))
    (rank,) = ranks()
    made = renderer(placed)
    made.submit(rows(1)[0], "0" * 32)
    if when == "idle":
        os.kill(rank, signal.SIGKILL)
        outcomes = _ended(made)
    else:
        outcomes = _ended(made, lambda: os.kill(rank, signal.SIGKILL))
    (failure,) = outcomes
    assert not isinstance(failure, Clip) and isinstance(failure.error, BrokenWorker)
    assert culprit_of(failure.error).blame == "worker"
    assert not ranks()
    placer(placed)._ranks._is_broken = False  # as in a new process
    assert frames(placed, rows(1)) == frames(alone, rows(1))


@pytest.mark.ci
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
    (failure,) = _ended(made)
    assert not isinstance(failure, Clip) and isinstance(failure.error, BrokenWorker)
    assert "has not answered" in str(failure.error) and not ranks()
    placer(placed)._ranks._is_broken = False  # as in a new process


class _Sleep:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return time.sleep, (600,)


def _ended(made: Renderer, after_a_step: Callable[[], object] = lambda: None) -> list[object]:
    ended: list[object] = []
    for number in range(100):
        ended += made.step()
        if number == 1:
            after_a_step()
        if not made.num_active:
            break
    return ended


@pytest.mark.ci
def test_a_row_for_which_memory_runs_out_is_tried_again_by_a_new_group(placed: Model, alone: Model) -> None:
    frames(placed, rows(1))
    (before,) = ranks()
    placer(placed)._ranks.twins["transformer"].forward = _full
    assert frames(placed, rows(1)) == frames(alone, rows(1))
    (after,) = ranks()
    assert after != before


def _full(*_: object, **__: object) -> None:
    raise MemoryError("out of memory")


@pytest.mark.ci
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
    program = (
        "from framefleet import load_model\n"
        "from tests.models.test_ulysses import frames, ranks, rows\n"
        "from tests.tiny import tiny\n"
        "model = load_model(tiny('wan'), dtype='fp32', device='cpu', "
        "placement={'type': 'ulysses', 'devices': 2})\n"
        "frames(model, rows(1))\n"
        "print('ranks', *ranks(), flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    from tests.warm.process import start

    process = start("-c", program)
    assert process.stdout is not None
    line = next(line for line in iter(process.stdout.readline, "") if line.startswith("ranks"))
    (rank,) = map(int, line.split()[1:])
    os.kill(rank, signal.SIGSTOP)  # and even one that hangs
    process.kill()
    deadline = time.monotonic() + 60
    with suppress(OSError):  # it has gone
        while Path(f"/proc/{rank}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wan", {"placement": "ulysses"}, "does not say how many processes"),
        (
            "wan",
            {"placement": {"type": "ulysses", "devices": 2}, "fuse_qkv": True},
            "fuse_qkv",
        ),
        ("sd", {"placement": {"type": "ulysses", "devices": 2}}, "no context parallel plan for unet"),
        ("wan", {"placement": "components"}, "needs several GPUs"),
        ("wan", {"placement": {"type": "ulysses", "devices": 4}}, "has 2 attention heads"),
        ("wan", {"placement": "ulysses+components"}, "needs several GPUs"),
        ("wan", {"placement": {"type": "ulysses", "devices": 3, "ranks": 2}}, "is set with ranks: 2"),
        ("wan", {"placement": "ulyses"}, "there is no such placement\nhint: did you mean 'ulysses'"),
        ("wan", {"placement": {"type": "ulysses", "devices": 1}}, "placement.devices is 1"),
    ],
)
def test_what_cannot_be_placed_is_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(tiny(name), device="cpu", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["components", "layers", "ulysses", "ulysses+components"])
def test_a_process_with_too_few_gpus_says_so_before_it_reads_weights(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_device", lambda name: name)
    monkeypatch.setattr(Numerics, "apply", lambda numerics: None)
    monkeypatch.setattr(load, "_assembled", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match=f"{re.escape(kind)} needs at least 2 GPUs, .* has 1"):
        load_model(tiny("wan"), dtype="fp32", device="cuda", placement=kind)
