"""Compare every row of a case with its plain call: equal, failed or WRONG; list what is not as expected."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from framefleet.pipeline.render.audit.verdict import EQUAL
from framefleet.pipeline.request import Request
from tests.loras import TARGETS, save_lora
from tests.tinies.encoders import TEXT_WIDTH
from tools.odd_recipes.case import FIRST_GENERATE, GENERATE_LORAS, Case
from tools.odd_recipes.plain import Plain, plain_calls
from tools.odd_recipes.recipes.adapters import FILES
from tools.odd_recipes.rendered import Rendered, Run, rendered

Verdict = Literal["equal", "failed", "WRONG"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How a row ended. said: its error, or what its record says about audits. is_odd: does the odd thing."""

    seed: int
    verdict: Verdict
    said: str
    batch_size: float
    is_odd: bool

    @property
    def is_generate(self) -> bool:
        return self.seed >= FIRST_GENERATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The rows of each run of a case, and what is not as expected: without complaints the case passes."""

    case: str
    expected: str
    runs: dict[str, list[Row]]
    complaints: list[str]

    @property
    def mean_batch(self) -> float:
        """Mean rows per forward of the odd rows that were rendered, in the batched run."""
        sizes = [row.batch_size for row in self.runs.get("batched", []) if row.is_odd and row.batch_size]
        return sum(sizes) / len(sizes) if sizes else 0.0


@contextmanager
def files() -> Iterator[dict[str, Path]]:
    """Write the LoRAs and the embedding that recipes load; yield the LoRAs, which jobs may declare too."""
    with tempfile.TemporaryDirectory() as place:
        folder, loras = Path(place), {}
        for name in TARGETS["sd"]:
            loras[name] = folder / f"{name}.safetensors"
            save_lora("sd", name, folder / name).rename(loras[name])
        vector = torch.randn(1, TEXT_WIDTH, generator=torch.Generator().manual_seed(3))
        save_file({"<thing>": vector}, folder / "thing.safetensors")
        os.environ[FILES] = place
        _plain_generate_rows.cache_clear()
        yield loras


def judge(case: Case, files: dict[str, Path]) -> Judged:
    """Render a case and compare every row with its plain call. files: from `files`."""
    loras = files if case.loras else {}
    if case.expected == "invalid":
        return _judge_refusal(case, loras)
    odd = plain_calls(case.model, loras, case.odd_rows())
    plain = dict(enumerate(odd)) | _plain_generate_rows(case.model, tuple(loras.items()))
    runs = {name: _rows(case, name, run, plain) for name, run in rendered(case, loras).items()}
    complaints = [*_useless(case, odd, loras), *_wrong(case, runs), *_unexpected(case, runs["batched"])]
    return Judged(case=str(case), expected=case.expected, runs=runs, complaints=complaints)


def _judge_refusal(case: Case, loras: dict[str, Path]) -> Judged:
    """Judge a table that is refused as a whole: no frames, and an error that says why."""
    runs = rendered(case, loras)
    complaints = [
        f"{name}: {runs[name]}"
        for name in ("batched", "one by one")
        if not (isinstance(runs[name], str) and case.reason in runs[name])
    ]
    return Judged(case=str(case), expected=case.expected, runs={}, complaints=complaints)


@functools.cache
def _plain_generate_rows(model: str, loras: tuple[tuple[str, Path], ...]) -> dict[int, Plain]:
    """Return the plain calls of all `generate` rows, by seed: the same for all cases of a model."""
    case = Case(recipe="generate", expected="equal", model=model, loras=GENERATE_LORAS if loras else ())
    rows = case.generate_rows(FIRST_GENERATE)
    return {row.seed: plain for row, plain in zip(rows, plain_calls(model, dict(loras), rows), strict=True)}


def _rows(case: Case, name: str, run: Run, plain: dict[int, Plain]) -> list[Row]:
    """Judge each row of a run. A row without an outcome, or with two, is wrong."""
    rows = case.generate_rows(FIRST_GENERATE) if name == "next run" else case.odd_rows()
    return [_row(case, row.seed, run, plain[row.seed]) for row in rows]


def _row(case: Case, seed: int, run: Run, plain: Plain) -> Row:
    is_odd = seed < len(case.odd) and bool(case.odd[seed])
    ended = [] if isinstance(run, str) else [outcome for outcome in run if outcome.seed == seed]
    if len(ended) != 1:
        said = run if isinstance(run, str) else f"{len(ended)} outcomes"
        return Row(seed=seed, verdict="WRONG", said=said, batch_size=0.0, is_odd=is_odd)
    (outcome,) = ended
    verdict, said = _verdict(outcome, plain)
    return Row(seed=seed, verdict=verdict, said=said, batch_size=outcome.batch_size, is_odd=is_odd)


def _verdict(outcome: Rendered, plain: Plain) -> tuple[Verdict, str]:
    if outcome.error is not None:
        return "failed", outcome.error
    if plain.sha256 is None:
        return "WRONG", f"a script fails: {plain.error}"
    return ("equal" if outcome.sha256 == plain.sha256 else "WRONG"), outcome.audit


def _useless(case: Case, odd: Sequence[Plain], loras: dict[str, Path]) -> Iterator[str]:
    """Yield why a case proves nothing: its recipe fails in a script, or changes no frames."""
    failing = [
        f"row {seed} fails in a script: {plain.error}" for seed, plain in enumerate(odd) if plain.error
    ]
    if case.expected != "fails":
        yield from failing
    elif not failing:
        yield "no row fails in a script"
    own = {"odd", *(name for cells in case.cells for name in cells)}
    seeds = [seed for seed, amount in enumerate(case.odd) if amount]
    usual = [_as_generate(row, own) for row in case.odd_rows() if row.seed in seeds]
    if (plain_calls(case.model, loras, usual) == [odd[seed] for seed in seeds]) != case.is_invisible:
        found = "in some odd rows" if case.is_invisible else "in no odd row"
        yield f"the recipe changes frames {found} of a script"


def _as_generate(row: Request, own: set[str]) -> Request:
    """Return the row without the recipe and its own columns."""
    arguments = {name: value for name, value in row.arguments.items() if name not in own}
    return replace(row, arguments=arguments, recipe="generate")


def _wrong(case: Case, runs: dict[str, list[Row]]) -> Iterator[str]:
    """Yield the rows that are wrong, and the `generate` rows that are not equal, by what they said."""
    for run, rows in runs.items():
        said: dict[tuple[str, str], list[int]] = {}
        is_first = True
        for row in rows:
            may_be_wrong = case.leaves and not (is_first or row.is_generate or row.said.startswith(EQUAL))
            is_first &= not row.is_odd
            if may_be_wrong:
                continue
            if row.verdict == "WRONG" or (row.is_generate and row.verdict != "equal"):
                said.setdefault((row.verdict, row.said), []).append(row.seed)
        for (verdict, text), seeds in said.items():
            yield f"{run}: rows {seeds} are {verdict}" + (f": {text}" if text else "")


def _unexpected(case: Case, rows: list[Row]) -> Iterator[str]:
    """Yield what else is not as expected in the batched run."""
    odd = [row for row in rows if row.is_odd]
    failed = [row for row in odd if row.verdict == "failed"]
    shared = [row.seed for row in odd if row.batch_size > 1]
    if case.expected == "refused":
        yield from (f"row {row.seed} was not refused" for row in odd if row not in failed)
        yield from (f"row {row.seed} failed: {row.said}" for row in failed if case.reason not in row.said)
    elif case.expected == "fails":
        yield from () if failed else ("no row failed",)
    else:
        yield from (f"row {row.seed} failed: {row.said}" for row in failed)
    if case.expected == "batched" and not shared:
        yield "no odd row shared a forward"
    if case.expected == "unbatched" and shared:
        yield f"rows {shared} shared forwards"
