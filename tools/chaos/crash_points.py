"""Kill a command before each change it makes to an output, and halfway through, and run it again.

    python -m tools.chaos.crash_points [render repair compact forget retry add fleet export] [--every 3]

Each try begins with a copy of the same folder: six rows of a tiny model, without Ray. A change is a write,
a rename or a deletion by `Folder`; halfway through a write, half of its temporary file is there. After the
kill the same command runs again, and DuckDB and pandas read the output as docs/output.md says. Prints for
each command how many tries there were, and what was lost, doubled, changed or astray then, and once what was
half written was swept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

import framefleet
from framefleet.cluster.driver.driver import Driver
from framefleet.cluster.driver.run import Run
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.jobs.render import render as render_module
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.stores import folder as folder_module
from framefleet.pipeline.outputs.stores.folder import _LEFT_AFTER_S, TEMPORARY, Folder
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.keep.verify.verify import damages_of
from tests.driven import WorkersHere
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.tiny import tiny

KILLED = 137
NUM_ROWS = 6
WRITES, DELETIONS = ("write", "upload", "create"), ("delete", "delete_all")


class NoStart:
    """In place of Ray's start."""

    def __init__(self, settings: FleetSettings, *_: object) -> None:
        self.settings = settings

    def __enter__(self) -> NoStart:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""

    def import_libraries(self, **_: object) -> None:
        """They are there."""

    def begin(self, *_: object) -> None:
        """Workers are threads."""


def drive(run: Run, *_: object) -> Any:
    """Render with a worker in this process."""
    with closing(WorkersHere(run.setups, 1)) as workers:
        return Driver(run, on_progress=lambda _: None).run(cast(Fleet, workers))


def values(place: Path) -> dict[str, Any]:
    return job_values(place / "table.parquet", place / "output")


def render(place: Path) -> None:
    framefleet.render(values(place))


def render_with_failures(place: Path) -> None:
    from framefleet.pipeline.render.renderer import Renderer

    submit = Renderer.submit

    def refuse(renderer: Renderer, request: Any, *given: Any, **named: Any) -> None:
        arguments = dict(request.arguments)
        if request.seed % 3 == 0:
            arguments["prompt_embeds"] = 1  # raises as it renders
        submit(renderer, framefleet.Request(**{**vars_of(request), "arguments": arguments}), *given, **named)

    Renderer.submit = refuse  # type: ignore[method-assign]
    render(place)


def vars_of(request: framefleet.Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("arguments", "seed", "scheduler", "recipe")}


def damaged(place: Path) -> None:
    """Render, then damage a clip, delete another, and put a copy of a part next to it."""
    render(place)
    first, second, *_ = sorted((place / "output" / "clips").rglob("*.mp4"))
    first.write_bytes(first.read_bytes()[:-5])
    second.unlink()
    part = next((place / "output" / "records").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-9])


def repair(place: Path) -> None:
    framefleet.repair(values(place))


def retry(place: Path) -> None:
    framefleet.retry(values(place))


def many_parts(place: Path) -> None:
    """Render so that each row has a part of its own."""
    from framefleet.pipeline.outputs.parts import parts

    parts._MAX_ROWS = 1
    render(place)


def compact(place: Path) -> None:
    framefleet.compact(str(place / "output"))


def forget(place: Path) -> None:
    framefleet.forget(str(place / "output"), where="tag IN ('row 2', 'row 3')")


def add(place: Path) -> None:
    """Add the rows that are there again, and one more; then render it."""
    framefleet.add(values(place), prompt_rows(NUM_ROWS + 1, num_inference_steps=1))
    render(place)


def fleet(place: Path) -> None:
    """Render on a fleet that stays, with weights of its own."""
    job = {name: value for name, value in values(place).items() if name != "table"}
    with framefleet.fleet(job) as warm:
        warm.render(prompt_rows(NUM_ROWS, num_inference_steps=1))


def export(place: Path) -> None:
    framefleet.export(str(place / "output"), str(place / "export"), format="hf", shard_rows=2)


@dataclass(frozen=True, slots=True)
class Command:
    """prepare: makes the folder that each try begins with. run: is killed, and run again.

    sweep: what deletes half-written files a minute later.
    """

    prepare: Callable[[Path], None]
    run: Callable[[Path], None]
    sweep: Callable[[Path], None]


COMMANDS = {
    "render": Command(lambda _: None, render, render),
    "repair": Command(damaged, repair, repair),
    "compact": Command(many_parts, compact, render),
    "forget": Command(render, forget, forget),
    "retry": Command(render_with_failures, retry, render),  # retry has nothing to do then
    "add": Command(render, add, render),
    "fleet": Command(lambda _: None, fleet, fleet),
    "export": Command(render, export, export),
}


class Killer:
    """Counts changes by `Folder`; ends the process at one. half: halfway through it."""

    def __init__(self, at: int | None, *, half: bool, log: Path) -> None:
        self._at, self._half, self._log = at, half, log
        self._lock = threading.Lock()
        self._local = threading.local()
        self._count = 0
        for name in (*WRITES, "move", *DELETIONS):
            setattr(Folder, name, self._counted(name, getattr(Folder, name)))
        temporary = folder_module._temporary

        @contextmanager
        def half_written(target: Path, content: Any) -> Iterator[Path]:
            with temporary(target, content) as file:
                if getattr(self._local, "dies", False):
                    os.truncate(file, file.stat().st_size // 2)
                    os._exit(KILLED)
                yield file

        folder_module._temporary = half_written

    def _counted(self, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(folder: Folder, path: str, *more: Any) -> Any:
            with self._lock:
                self._count += 1
                is_here = self._count == self._at
                with open(self._log, "a", encoding="utf-8") as log:
                    log.write(f"{name} {path}\n")
            if is_here and not self._half:
                os._exit(KILLED)
            if is_here and name == "delete_all":
                files = sorted(file for file in (folder.root / path).rglob("*") if file.is_file())
                for file in files[: len(files) // 2]:
                    file.unlink()
                os._exit(KILLED)
            self._local.dies = is_here and name in WRITES
            return change(folder, path, *more)

        return changed


def in_child(function: Callable[[], None], said: Path) -> int:
    """Return the exit code of a fork that calls it. said: gets what it prints."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with open(said, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        vars(render_module).update(Start=NoStart, _drive=drive)
        function()
        for thread in threading.enumerate():
            if thread.name == "sweep":
                thread.join()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def state(place: Path) -> dict[str, str]:
    """Return the digest of each row's frames; raises AssertionError for a row of several records."""
    records = records_of(place / "output")
    counts = Counter(record["row_id"] for record in records)
    assert max(counts.values(), default=1) == 1, f"doubled: {counts}"
    return {record["row_id"]: record["frames_sha256"] for record in records}


def read_elsewhere(place: Path) -> None:
    """Raise AssertionError where DuckDB or pandas do not count each record and each row of the table once."""
    import duckdb
    import pandas

    output = place / "output"
    expected = {record["row_id"] for record in records_of(output)}
    for folder, key in (("records", "row_id"), ("rows", "row_index")):
        if not any(output.glob(f"{folder}/*.parquet")):
            continue
        found = duckdb.sql(
            f"SELECT {key} FROM read_parquet('{output}/{folder}/*.parquet', union_by_name = true)"
        )
        keys = [value for (value,) in found.fetchall()]
        assert sorted(keys) == sorted(pandas.read_parquet(output / folder)[key]), f"{folder}: two answers"
        assert len(keys) == len({*keys}), f"{folder}: {len(keys)} rows of {len({*keys})}"
        assert folder != "records" or {*keys} == expected, f"{folder}: others than framefleet reads"


def exported(place: Path) -> dict[str, bytes]:
    """Return the files of an export, without those that tell of its progress."""
    root = place / "export"
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def judge(place: Path, expected: Path) -> list[str]:
    """Return what is wrong with a folder after all runs, in comparison with one of a run without a kill."""
    found = [f"astray: {file}" for file in place.rglob(f"{TEMPORARY}*")]
    try:
        now, then = state(place), state(expected)
    except AssertionError as error:
        return [*found, str(error)]
    found += [f"lost: {row_id}" for row_id in then.keys() - now.keys()]
    found += [f"changed: {row_id}" for row_id in now if now[row_id] != then.get(row_id)]
    named = {"missing": "lost", "doubled": "doubled", "bytes": "changed", "size": "changed"}
    for damage in damages_of(Store(str(place / "output")), Callback()):
        found.append(f"{named.get(damage.kind, 'astray')}: {damage}")
    if exported(place) != exported(expected):
        found.append("changed: the export")
    return found


@dataclass(slots=True)
class Tried:
    """What came of one command. bad: by point, what is wrong."""

    num_changes: int = 0
    num_tries: int = 0
    num_killed: int = 0
    bad: dict[str, list[str]] | None = None

    def count(self, word: str) -> int:
        return sum(any(text.startswith(word) for text in found) for found in (self.bad or {}).values())


def try_command(name: str, folder: Path, *, every: int = 1) -> Tried:
    """Kill it at each point, or at one in `every`."""
    command, said, log = COMMANDS[name], folder / "said.txt", folder / "changes.txt"
    start, expected = folder / "start", folder / "expected"
    start.mkdir()
    write_table(start / "table.parquet", prompt_rows(NUM_ROWS, num_inference_steps=1))
    place = folder / "place"  # of one name: job.json holds it

    def run(at: int | None, *, half: bool = False) -> int:
        def killed() -> None:
            log.unlink(missing_ok=True)
            Killer(at, half=half, log=log)
            command.run(place)

        return in_child(killed, said)

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(start, place)

    begin()
    assert in_child(lambda: command.prepare(place), said) == 0, said.read_text()
    shutil.rmtree(start)
    shutil.copytree(place, start)
    assert run(None) == 0, said.read_text()
    shutil.copytree(place, expected)
    changes = log.read_text().splitlines()
    tried = Tried(num_changes=len(changes), bad={})
    points = [(at, half) for at in range(1, len(changes) + 1) for half in (False, True)]
    for at, half in points[::every]:
        change = changes[at - 1]
        if half and change.split()[0] not in (*WRITES, "delete_all"):
            continue
        begin()
        said.write_text("")
        tried.num_tries += 1
        tried.num_killed += run(at, half=half) == KILLED
        code = run(None)
        code_elsewhere = in_child(lambda: read_elsewhere(place), said)
        for old in place.rglob(f"{TEMPORARY}*"):  # a minute later
            os.utime(old, (time.time() - 2 * _LEFT_AFTER_S,) * 2)
        code = code or in_child(lambda: command.sweep(place), said)
        found = judge(place, expected) if code == 0 else [f"failed: {said.read_text()[-2000:]}"]
        if code_elsewhere:
            found.append(f"doubled: for others: {said.read_text()[-2000:]}")
        if found:
            tried.bad[f"{'half of' if half else 'before'} {at}, {change}"] = found
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commands", nargs="*", default=[], metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--every", type=int, default=1, help="kill at one point in so many")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tiny("wan")  # which all forks render with
    print(
        "| command | changes | tries | killed | lost | doubled | changed | astray | failed |\n|"
        + " --- |" * 9
    )
    is_fine = True
    for name in asked.commands or COMMANDS:
        with tempfile.TemporaryDirectory(prefix="crash-points-") as folder:
            tried = try_command(name, Path(folder), every=asked.every)
        words = ("lost", "doubled", "changed", "astray", "failed")
        cells = (name, tried.num_changes, tried.num_tries, tried.num_killed, *map(tried.count, words))
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        for point, found in (tried.bad or {}).items():
            is_fine = False
            print(f"  {point}: " + "; ".join(found), file=sys.stderr, flush=True)
    sys.exit(not is_fine)


if __name__ == "__main__":
    main()
