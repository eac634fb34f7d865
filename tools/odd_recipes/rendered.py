"""Render the rows of a case with Renderers of their own: batched, and one by one."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from framefleet import Batching, Clip, Renderer, Request, Store, load_model
from framefleet.pipeline.outputs.clips import Outcome
from framefleet.pipeline.recipes.catalog import find_recipe
from tests.tiny import tiny
from tools.odd_recipes.case import FIRST_GENERATE, Case
from tools.odd_recipes.forked import ForkError, in_fork


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One outcome: the digest of its frames, or an error. audit: what its environment says about audits."""

    seed: int
    sha256: str | None = None
    error: str | None = None
    batch_size: float = 0.0
    audit: str = ""


Run = list[Rendered] | str  # the outcomes, or why there are none


def rendered(case: Case, loras: dict[str, Path]) -> dict[str, Run]:
    """Render in a process for each of "batched", "one by one" and "next run".

    "next run" are `generate` rows in a new process, with the text embeddings that the first one stored.
    """
    with tempfile.TemporaryDirectory() as place:
        stored = Path(place, "stored") if case.keeps_embeddings else None
        rows = case.odd_rows()
        runs = {
            "batched": _in_fork(case, loras, Path(place, "batched"), 4, stored, rows),
            "one by one": _in_fork(case, loras, Path(place, "one"), 1, None, rows),
        }
        if stored:
            rows = case.generate_rows(FIRST_GENERATE)
            runs["next run"] = _in_fork(case, loras, Path(place, "next"), 4, stored, rows)
        return runs


def _in_fork(
    case: Case,
    loras: dict[str, Path],
    cache: Path,
    max_rows: int,
    stored: Path | None,
    rows: list[Request],
) -> Run:
    try:
        run: Run = in_fork(_render, case, loras, cache, max_rows, stored, rows)
    except ForkError as error:
        return str(error)
    return run


def _render(
    case: Case,
    loras: dict[str, Path],
    cache: Path,
    max_rows: int,
    stored: Path | None,
    rows: list[Request],
) -> Run:
    os.environ["FRAMEFLEET_CACHE"] = str(cache)  # nothing that another case found out about batches
    model = load_model(tiny(case.model), dtype="fp32", loras=loras)
    store = Store(str(stored)) if stored else None
    names = {row.recipe for row in rows if case.expected == "batched"}
    # As `@framefleet.recipe(batched=True)` says of a recipe.
    recipes = {name: replace(find_recipe(name), is_batched=True) for name in names} or None
    renderer = Renderer(model, Batching(max_rows=max_rows, min_gain=0), embeddings=store, recipes=recipes)
    return _outcomes(renderer, rows)


def _outcomes(renderer: Renderer, table: list[Request]) -> Run:
    try:
        return [_summary(outcome) for outcome in renderer.render(table, progress=False)]
    except Exception as error:  # of any type: rows without an outcome are judged as wrong
        return f"the renderer raised {type(error).__name__}: {error}"


def _summary(outcome: Outcome) -> Rendered:
    seed = outcome.request.seed
    if not isinstance(outcome, Clip):
        return Rendered(seed=seed, error=f"{type(outcome.error).__name__}: {outcome.error}")
    return Rendered(
        seed=seed,
        sha256=outcome.frames_sha256,
        batch_size=outcome.batch_size,
        audit=str(outcome.environment.get("audit", "")),
    )
