"""Everything that is to be known of a GPU, in one command and under ten minutes; without Ray, and offline.

    python -m tools.benchmarks.gpu_day OUT                        # a report there, as Markdown and as JSON
    python -m tools.benchmarks.gpu_day OUT --device cpu --small   # the same with toys, anywhere
    python -m tools.benchmarks.gpu_day OUT --stand-in --small     # with toys on the tests' stand-in for CUDA
    python -m tools.benchmarks.gpu_day OUT --only tests           # one part alone

What a call that is cut off must not lose comes first: which kernels keep a row's bits in a batch, whether
another process compiles the same bits, convolutions with little memory, what `cudnn.deterministic` costs
decoders, peak memory, a full GPU, a device assert; then rows per second (real_rows) and tests/gpu. Each part
is a process of its own, as how products are summed is set before CUDA starts, and is ended when its share of
the time is over. Results are written as they
come.
Exit code 0: every part ran to its end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.standin.install import install
from tools.benchmarks.gpu_report import Outcome, State, write_report

MINUTES = 9.5  # what a borrowed machine gives is ten
POLL_S = 0.5
REWRITE_S = 5.0
MAX_SHOWN = 2000
RESULTS, ERROR, LOG = ".jsonl", ".error.txt", ".log.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module with `run`, which is given what tells a result; or with `main`, which prints.

    share: of the time, against the others'; what one leaves goes to the rest.
    """

    name: str
    program: str
    arguments: Sequence[str]
    share: float


def parts(*, device: str, small: bool) -> list[Part]:
    """Return all parts, in the order in which they are worth most if the call is cut off."""
    on = ("--device", device)
    there = (*on, *(["--tiny"] * small))
    found = (
        ("machine", "gpu_machine", [], 20),
        ("bits, in one piece", "gpu_bits", [*there, "--matmul", "no_split_k"], 50),
        ("bits, as torch sums", "gpu_bits", [*there, "--matmul", "default"], 40),
        ("compile", "gpu_compiled", there, 50),
        ("compile again", "gpu_compiled", there, 50),
        ("squeezed convolutions", "gpu_squeezed", there, 40),
        ("deterministic decoders", "gpu_deterministic", there, 50),
        ("peak memory", "gpu_peak", there, 50),
        ("full GPU", "gpu_neighbour", there, 40),
        ("device assert", "gpu_assert", on, 25),
        ("after the assert", "gpu_assert", [*on, "--again"], 25),
        ("rows at 512", "real_rows", [*there, "--case", "512x512"], 50),
        ("rows at 1024", "real_rows", [*there, "--case", "1024x1024"], 40),
        ("rows at 480p", "real_rows", [*there, "--case", "480x17"], 60),
        ("components on two GPUs", "gpu_placement", [*there, "--placement", "components"], 30),
        ("ulysses on two GPUs", "gpu_placement", [*there, "--placement", "ulysses"], 40),
        ("tests", "gpu_tests", ["--collect-only"] * small, 60),
    )
    return [
        Part(name=name, program=f"tools.benchmarks.{program}", arguments=arguments, share=share)
        for name, program, arguments, share in found
    ]


def main() -> None:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended and written down
    remaining = parts(device=options.device, small=options.small)
    if unknown := {*options.only} - {part.name for part in remaining}:
        sys.exit(f"--only: no part is called {', '.join(sorted(unknown))}")
    remaining = [part for part in remaining if not options.only or part.name in options.only]
    context = multiprocessing.get_context("fork" if options.small else "spawn")
    for part in remaining if options.small else ():  # here, once: importing takes longer than toys do
        import_module(part.program)
    outcomes: list[Outcome] = []
    ends_at = time.monotonic() + options.minutes * 60
    while remaining:
        left_s = max(0.0, ends_at - time.monotonic())
        limit_s = left_s * remaining[0].share / sum(part.share for part in remaining)
        part = remaining.pop(0)
        print(f"{part.name}: at most {limit_s:.0f} s", file=sys.stderr, flush=True)
        run = Run(part, options.output, context, is_on_stand_in=options.stand_in)
        try:
            while run.goes_on(limit_s):
                write_report(options.output, [*outcomes, run.outcome()])
        finally:
            run.end()
            outcomes.append(run.outcome())
            write_report(options.output, outcomes)
    print(options.output / "report.md")
    sys.exit(any(outcome.state != "ended" for outcome in outcomes))


class Run:
    """One part at work in a process of its own, which leaves its results in files."""

    def __init__(
        self,
        part: Part,
        folder: Path,
        context: multiprocessing.context.BaseContext,
        *,
        is_on_stand_in: bool = False,
    ) -> None:
        self._part, self._files = part, folder / part.name.replace(", ", "_").replace(" ", "_")
        for kind in (RESULTS, ERROR, LOG):
            self._file(kind).unlink(missing_ok=True)
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_work, args=(part, self._files, is_on_stand_in)
        )
        self._started = time.monotonic()
        self._seconds: float | None = None
        self._is_over_time = False
        self._process.start()

    def goes_on(self, limit_s: float) -> bool:
        """Wait for some seconds; return whether it is still at work. It is ended after limit_s."""
        until = min(time.monotonic() + REWRITE_S, self._started + limit_s)
        while self._process.is_alive() and time.monotonic() < until:
            self._process.join(POLL_S)
        if self._process.is_alive() and time.monotonic() >= self._started + limit_s:
            self._is_over_time = True
            self.end()
        return bool(self._process.is_alive())

    def end(self) -> None:
        if self._process.is_alive():
            with suppress(ProcessLookupError, PermissionError):  # it leads a group once it has begun
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        self._process.join()
        self._seconds = self._seconds or time.monotonic() - self._started

    def outcome(self) -> Outcome:
        """Return how it stands now."""
        code = self._process.exitcode
        log = _text(self._file(LOG))[-MAX_SHOWN:]
        results = _text(self._file(RESULTS)).splitlines(keepends=True)
        error = _text(self._file(ERROR)) or f"exit code {code}\n{log}"
        return Outcome(
            part=self._part.name,
            program=f"{self._part.program} {' '.join(self._part.arguments)}".strip(),
            state=self._state(),
            seconds=round(self._seconds or time.monotonic() - self._started, 1),
            results=[json.loads(one) for one in results if one.endswith("\n")],  # the last may be half of one
            printed="" if results else log,
            error=error if self._state() == "failed" else "",
        )

    def _state(self) -> State:
        if self._is_over_time:
            return "out of time"
        code = self._process.exitcode
        return "runs" if code is None else "failed" if code else "ended"

    def _file(self, kind: str) -> Path:
        return self._files.with_suffix(kind)


def _work(part: Part, files: Path, is_on_stand_in: bool) -> None:
    with suppress(OSError):
        os.setsid()  # so that what it starts ends with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with (
        files.with_suffix(LOG).open("w", buffering=1) as log,
        files.with_suffix(RESULTS).open("w", buffering=1) as out,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            if is_on_stand_in:
                install()
            program = import_module(part.program)
            if hasattr(program, "run"):
                program.run(part.arguments, lambda result: out.write(json.dumps(result) + "\n"))
            else:
                sys.argv = [part.program, *part.arguments]
                program.main()
        except BaseException:  # SystemExit of a parser too: the report tells
            files.with_suffix(ERROR).write_text(traceback.format_exc())
            sys.exit(1)


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.gpu_day", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="toys; the figures mean nothing")
    parser.add_argument("--stand-in", action="store_true", help="put the stand-in for CUDA in a GPU's place")
    parser.add_argument("--only", nargs="+", default=(), metavar="PART", help="these parts alone")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    options = parser.parse_args()
    if options.stand_in and not options.small:
        parser.error("--stand-in needs --small: it computes on the CPU")
    return options


if __name__ == "__main__":
    main()
