"""Render rows of recipes mixed with rows of `generate` as a real job; compare each with its plain call."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import framefleet
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.audit.verdict import EQUAL, remark_of
from framefleet.pipeline.request import Request
from tests.jobs import all_columns
from tests.tiny import SMALLEST, tiny
from tools.odd_recipes.case import ODD, PROMPTS
from tools.odd_recipes.plain import Plain, plain_calls

MODEL = "sd"
_FIRST_GENERATE = 10_000  # seed


def judged_job(
    module: str, names: Sequence[str], *, num_generate: int = 24, every: int | None = None
) -> dict[str, Any]:
    """Return counts of rows, and complaints: wrong rows of `generate`, wrong rows that are said to be equal.

    module, names: of the recipes, each of which takes `odd`. every: see `audit.every`.
    """
    odd = [
        _request(f"{module}:{name}", 100 * number + place, odd=amount)
        for number, name in enumerate(names)
        for place, amount in enumerate(ODD)
    ]
    usual = [_request("generate", _FIRST_GENERATE + number) for number in range(num_generate)]
    requests = [row for pair in zip(_spread(usual, len(odd)), odd, strict=True) for row in pair if row]
    with tempfile.TemporaryDirectory() as place:
        records = _rendered(Path(place), module, names[0], requests, every)
    plain = {
        request.seed: one for request, one in zip(requests, plain_calls(MODEL, {}, requests), strict=True)
    }
    return _judged(requests, records, plain)


def _request(recipe: str, seed: int, **own: Any) -> Request:
    arguments = SMALLEST[MODEL] | {
        "prompt": PROMPTS[seed % len(PROMPTS)],
        "num_inference_steps": 2 + seed % 3,
        "guidance_scale": 3.0 + seed % 4,
    }
    return Request(arguments=arguments | own, seed=seed, recipe=recipe)


def _spread(rows: Sequence[Request], num_places: int) -> list[Request | None]:
    step = max(1, num_places // len(rows))
    spread: list[Request | None] = [None] * num_places
    for number, row in enumerate(rows):
        spread[min(number * step, num_places - 1)] = row
    return spread


def _rendered(
    folder: Path, module: str, first: str, requests: Sequence[Request], every: int | None
) -> dict[int, dict[str, Any]]:
    table = [{**row.arguments, "seed": row.seed, "recipe": row.recipe} for row in requests]
    pq.write_table(pa.Table.from_pylist(table), folder / "t.parquet")
    values: dict[str, Any] = {
        "table": str(folder / "t.parquet"),
        "output": str(folder / "out"),
        "recipe": f"{module}:{first}",
        "model": {"path": str(tiny(MODEL)), "dtype": "fp32"},
        "batching": {"max_rows": 6},
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    if every is not None:
        values["audit"] = {"every": every}
    print(framefleet.render(values), file=sys.stderr)
    store = Store(str(folder / "out"))
    failures = all_columns(store, "failures").to_pylist()
    return {record["seed"]: record for record in [*all_columns(store, "records").to_pylist(), *failures]}


def _judged(
    requests: Sequence[Request], records: dict[int, dict[str, Any]], plain: dict[int, Plain]
) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {}
    complaints: list[str] = []
    for row in requests:
        record, name = records.get(row.seed), row.recipe.rpartition(":")[2]
        remark = (remark_of(record.get("environment") or "{}") or "") if record else ""
        if record is None:
            verdict = "missing"
        elif record.get("frames_sha256") is None:
            verdict = "failed"
        else:
            verdict = "equal" if record["frames_sha256"] == plain[row.seed].sha256 else "WRONG"
        counts.setdefault(name, Counter())[verdict] += 1
        is_blamed = verdict != "equal" and (row.recipe == "generate" or verdict == "missing")
        if is_blamed or (verdict == "WRONG" and remark.startswith(EQUAL)):
            complaints.append(f"{name}, seed {row.seed}: {verdict}, and its record says {remark!r}")
    return {"counts": {name: dict(count) for name, count in counts.items()}, "complaints": complaints}


def recipes_of(module: str) -> list[str]:
    """Return the names of the recipes that a module defines."""
    found = importlib.import_module(module)
    return [
        name
        for name, one in vars(found).items()
        if inspect.isfunction(one)
        and one.__module__ == module
        and not name.startswith("_")
        and [*inspect.signature(one).parameters][:2] == ["pipe", "request"]
        and "odd" in inspect.signature(one).parameters
    ]


if __name__ == "__main__":
    every = int(sys.argv[2]) if len(sys.argv) > 2 else None
    result = judged_job(sys.argv[1], recipes_of(sys.argv[1]), every=every)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["complaints"]))
