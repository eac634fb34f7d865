"""What was found of batches is begun with elsewhere, and proven there: a lie costs time and no bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet import Batching, Store
from framefleet.pipeline.outputs.stores import retries
from framefleet.pipeline.render import findings_storage as kept
from framefleet.pipeline.render.findings import Findings
from framefleet.pipeline.render.findings_storage import BatchSize, Found, Pins, Places, united
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.forwards import Forwards
from tests.unit.denoising import Denoiser, alone, render, steps

ROWS = 4


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for what is written and read, however busy the disk is."""
    monkeypatch.setattr(kept, "_PATIENCE_S", 120.0)
    monkeypatch.setattr(retries, "WITHIN_S", 120.0)


class Shift(nn.Module):
    """Rounds differently in company."""

    def forward(self, value: Tensor) -> Tensor:
        return value + 1e-3 * (value.shape[0] > 1)


class Rounding(Denoiser):
    """One inner module must be pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = Shift()

    def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
        return self.shift(super().forward(latents, timestep, table))


class Hopeless(Denoiser):
    """No pin makes it exact."""

    def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
        return super().forward(latents, timestep, table) + 1e-3 * (latents.shape[0] > 1)


def process(denoiser: nn.Module, output: Store | None = None, **batching: Any) -> tuple[Batcher, Places]:
    """A batcher as another process would have it."""
    places = Places(output)
    settings = Batching(**{"min_gain": 1e-9, "max_rows": ROWS, **batching})
    return Batcher(Forwards({"unet": denoiser}, settings, findings=Findings(places, "here"))), places


def run(denoiser: Denoiser, output: Store | None = None, **batching: Any) -> list[int]:
    """Render rows in a process of their own, check them; return the rows of its forwards."""
    batcher, places = process(denoiser, output, **batching)
    starts = [2.5 + row for row in range(ROWS)]
    tasks = render(batcher, *(lambda start=start: steps(denoiser, start) for start in starts))
    assert [task.value for task in tasks] == [alone(start) for start in starts]
    places.finish()
    return denoiser.rows


def files() -> list[Path]:
    return sorted(Path(os.environ["FRAMEFLEET_CACHE"]).glob("probes/here/*.json"))


def lie(**said: Any) -> None:
    """Change what the one file of the cache says."""
    (file,) = files()
    file.write_text(json.dumps(json.loads(file.read_text()) | said))


def test_another_process_begins_with_the_size_that_was_found_and_searches_nothing() -> None:
    searched = run(Rounding())
    begun = run(Rounding())
    # Each row's own forward, one that is watched, one where all else is compared, one that proves the plan.
    assert begun == [*[1] * ROWS, 1, ROWS, ROWS, *[ROWS] * 2]
    assert sum(rows > 1 for rows in searched) > 2 * sum(rows > 1 for rows in begun)
    assert len(files()) == 1


def test_fast_mode_uses_a_size_that_paid_elsewhere_though_its_first_forward_here_is_slow() -> None:
    run(Denoiser(), mode="fast")
    lie(sizes=[{"rows": rows, "seconds": 1e-9, "verdict": "pays"} for rows in (2, ROWS)])
    begun = run(Denoiser(), mode="fast", min_gain=1.05)
    assert begun == [*[1] * ROWS, ROWS, *[ROWS] * 2]  # one trial, and two more steps


def test_what_was_searched_in_vain_is_not_searched_again() -> None:
    first = {*run(Hopeless())}
    assert max(first) > 1
    second = {*run(Hopeless())}  # may try a size that was not worth a trial before
    assert first & second == {1}
    assert {*run(Hopeless())} == {1}


def test_a_file_that_leaves_a_pin_out_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    run(Rounding())
    (pins,) = (p for p in json.loads(files()[0].read_text())["pins"] if p["rows"] == ROWS)
    assert pins["modules"] == ["shift"]
    lie(pins=[pins | {"modules": []}])
    run(Rounding())
    assert "the stored result for batches of 4 failed its check" in caplog.text
    caplog.clear()
    run(Rounding())
    assert "failed its check" not in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format":2,"sizes":[],"pins":[]}',
        b'{"format":1,"sizes":[{"rows":"4","seconds":1.0,"verdict":"pays"}],"pins":[]}',
        b'{"format":1,"sizes":[{"rows":4,"seconds":NaN,"verdict":"pays"}],"pins":[]}',
        b'{"format":1,"sizes":[{"rows":4,"seconds":0.0,"verdict":"pays"}],"pins":[]}',
        b'{"format":1,"sizes":[],"pins":[{"rows":4,"loras":["\\ud800"],"differing":[],"axes":[],"modules":[]}]}',
        b"[" * 100_000,
        b" " * (kept.MAX_FILE_BYTES + 1) + b"{}",
    ],
)
def test_a_damaged_file_says_nothing_and_is_written_anew(content: bytes) -> None:
    searched = run(Rounding())
    (file,) = files()
    file.write_bytes(content)
    assert len(run(Rounding())) == len(searched)
    assert json.loads(file.read_text())["pins"]


def test_another_machine_finds_it_in_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Store(str(tmp_path / "out"))
    searched = run(Rounding(), output)
    (entry,) = output.list("")
    assert entry.startswith(".probes/here/")
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "of another machine"))
    assert len(run(Rounding(), output)) < len(searched)
    assert len(files()) == 1  # this machine's next job has it without the output
    assert len(run(Rounding())) < len(searched)


def test_a_place_that_fails_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "file"))
    run(Rounding(), Store(str(tmp_path / "file" / "out")))
    (tmp_path / "out" / ".probes").mkdir(parents=True)
    os.mkfifo(tmp_path / "out" / ".probes" / "here")
    run(Rounding(), Store(str(tmp_path / "out")))


def test_two_writers_at_once_leave_a_whole_file() -> None:
    def write(rows: int) -> None:
        places = Places()
        for turn in range(20):
            places.keep("here/shape", Found(sizes=[BatchSize(rows=rows, seconds=1.0 + turn, verdict="pays")]))
            places.finish()
            assert places.read("here/shape") is not None

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (2, 3)))
    found = Places().read("here/shape")
    assert found is not None
    assert {size.rows for size in found.sizes} <= {2, 3}
    assert [path.name for path in files()] == ["shape.json"]


def test_calls_that_only_this_process_can_make_are_not_kept() -> None:
    class Table:
        __hash__ = object.__hash__

        def __call__(self) -> None: ...

    table: Any = Table()

    class Looking(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Any = None) -> Any:
            return super().forward(latents, timestep)

    denoiser = Looking()
    batcher, places = process(denoiser)
    recipes: list[Callable[[], Any]] = [lambda: steps(denoiser, 1.0, table=table)] * 2
    render(batcher, *recipes)
    places.finish()
    assert max(denoiser.rows) == 2
    assert files() == []


def test_of_what_both_speak_of_the_newer_is_kept() -> None:
    def size(rows: int, seconds: float) -> BatchSize:
        return BatchSize(rows=rows, seconds=seconds, verdict="pays")

    def pins(*modules: str, loras: tuple[str, ...] = ()) -> Pins:
        return Pins(rows=2, loras=list(loras), differing=[], axes=[0], modules=list(modules))

    older = Found(sizes=[size(2, 1.0), size(4, 1.0)], pins=[pins("a"), pins("b", loras=("style",))])
    newer = Found(sizes=[size(3, 2.0), size(2, 2.0)], pins=[pins("c")])
    both = united(older, newer)
    assert both.sizes == [size(2, 2.0), size(3, 2.0), size(4, 1.0)]
    assert both.pins == [pins("c"), pins("b", loras=("style",))]


def test_the_first_forward_waits_for_the_rows_that_may_join_it() -> None:
    run(Denoiser())
    batcher, _ = process(Denoiser())
    assert batcher.reach == 2
    denoiser = Denoiser()
    batcher, _ = process(denoiser)
    with torch.no_grad():
        batcher.start(RowTask(lambda: steps(denoiser, 1.0)))
        assert batcher.step() == []
    assert batcher.reach == ROWS
    assert denoiser.rows == []
