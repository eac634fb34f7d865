"""The GPU path over the stand-in: what CUDA refuses is refused, copies are late, and tests/gpu passes."""

from __future__ import annotations

import subprocess

import pytest
import torch

from tests.standin.faulted import NUM_ROWS, POINTS
from tests.warm.process import start

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")

DEVICE = """
import numpy, pytest, torch
from tests.standin.install import install
gpus = install(devices)
there = torch.arange(6.0, device="cuda").reshape(2, 3)
"""
REFUSED = """
for operation, error, said in (
    (lambda: there + torch.ones(2, 3), RuntimeError, "cuda:0 and cpu"),
    (lambda: there + torch.ones(2, 3, device="cuda:1"), RuntimeError, "cuda:0 and cuda:1"),
    (lambda: there.numpy(), TypeError, "can't convert cuda:0"),
    (lambda: torch.rand(2, device="cuda", generator=torch.Generator()), RuntimeError, "'cuda' device type"),
):
    with pytest.raises(error, match=said):
        operation()
assert (there @ torch.ones(3, device="cuda") + 1).cpu().tolist() == [4, 13]
assert torch.nn.Linear(3, 2).to("cuda:1")(there.to("cuda:1")).device == torch.device("cuda", 1)
"""
LATE = """
for index in (0, 1):
    made = torch.full((4,), 7.0, device=f"cuda:{index}")
    side = torch.cuda.Stream(index)
    with torch.cuda.stream(side):
        host = torch.empty(4, pin_memory=True).copy_(made, non_blocking=True)
    other = made.to("cpu", non_blocking=True)
    made.zero_()
    torch.cuda.synchronize(1 - index)
    assert not (host == 7).any() and not (other == 7).any()
    side.synchronize()
    assert (host == 7).all() and not (other == 7).any()
    torch.cuda.synchronize(index)
    assert (other == 7).all()
"""
MEMORY = """
from framefleet.pipeline.memory import peak_memory_bytes
del there
assert torch.cuda.memory_allocated() == 0
gpus.devices[0].capacity = 1 << 20
with pytest.raises(torch.OutOfMemoryError):
    [torch.empty(1 << 16, device="cuda") for _ in range(5)]
assert torch.cuda.memory_stats()["num_ooms"] == 1
kept = [torch.empty(1 << 16, device="cuda") for _ in range(4)]
assert torch.cuda.mem_get_info() == (0, 1 << 20)
with pytest.raises(torch.OutOfMemoryError):  # not an index that is out of range
    kept[0][torch.zeros(1 << 16, dtype=torch.long)]
assert [peak_memory_bytes(device) for device in ("cuda", "cuda:1")] == [1 << 20, 0]
"""
STICKY = """
from tests.standin.faults import breaking
with gpus.hooked(breaking("mul", at=2)):
    there * 2
    for operation in (lambda: there * 2, lambda: there + 2, torch.cuda.synchronize, torch.cuda.empty_cache):
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            operation()
there * 2
with gpus.hooked(lambda name: None):
    for operation in (lambda: there[torch.tensor([9], device="cuda")], lambda: there * 2):
        with pytest.raises(torch.AcceleratorError, match="device-side assert"):
            operation()
"""


PRODUCT = """
from framefleet.pipeline.render.row_seconds import RowSeconds, timed
from framefleet.plugins.marks.file_marks import SPREAD
from framefleet.plugins.marks.watermark import mark_frames
frames = numpy.random.default_rng(0).integers(0, 256, (5, 70, 90, 3), dtype=numpy.uint8)
marked = [mark_frames(frames, [SPREAD], "ab" * 16, device=device) for device in ("cpu", "cuda:1")]
assert numpy.array_equal(*marked) and not numpy.array_equal(marked[0], frames)
there, gpus.op_s, seconds = there.to("cuda:1"), 0.5, RowSeconds()
[there * 2 for _ in range(3)]
timed("decode_s", lambda: seconds, "cuda:1")("vae", lambda: [there * 2 for _ in range(2)])
assert not seconds, "nobody waits meanwhile"
seconds.settled()
assert seconds["denoise_s"] > 1 and 1 <= seconds["decode_s"] < 1.5, seconds
"""
PROGRAMS = {"refused": REFUSED, "late": LATE, "memory": MEMORY, "sticky": STICKY, "product": PRODUCT}


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a torch that was built for the CPU alone")
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_stand_in_is_as_strict_as_a_gpu(program: str) -> None:
    process = start("-c", DEVICE.replace("devices", "2") + program)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], list[str]]:
    """What `python -m tests.standin` prints: by point and fault, the other cells."""
    process = start("-m", "tests.standin", stderr=subprocess.PIPE)
    printed, said = process.communicate()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert rows, said
    return {(point, fault): cells for point, fault, *cells in rows}


@pytest.mark.parametrize("point", [point.name for point in POINTS])
def test_where_memory_runs_out_once_every_row_is_exact_and_nobody_is_blamed(
    point: str, table: dict[tuple[str, str], list[str]]
) -> None:
    num_exact, num_wrong, num_again, blamed, raised = table[point, "memory"]
    assert (num_exact, num_wrong, blamed, raised) == (str(NUM_ROWS), "0", "nobody", "")
    assert int(num_again) <= 1


@pytest.mark.parametrize("point", [point.name for point in POINTS])
def test_where_a_kernel_breaks_the_context_its_process_is_blamed_and_no_row(
    point: str, table: dict[tuple[str, str], list[str]]
) -> None:
    _, num_wrong, _, blamed, raised = table[point, "sticky"]
    assert (num_wrong, set(blamed.split(", ")), raised) == ("0", {"worker"}, "")


@pytest.mark.parametrize(
    "chosen",
    [
        (("-k", "draws or numerics or pixels or [6]")),
        pytest.param((), marks=(pytest.mark.long, pytest.mark.timeout(1800))),
    ],
    ids=["some", "all"],
)
def test_tests_of_the_gpu_pass_on_the_stand_in(chosen: tuple[str, ...]) -> None:
    options = ("-q", "-n", "0", "-p", "no:cacheprovider", "-p", "tests.standin.plugin")
    process = start("-m", "pytest", *options, "tests/gpu", *chosen, stderr=subprocess.STDOUT)
    printed, _ = process.communicate()
    assert process.returncode == 0 and " passed" in printed, printed
