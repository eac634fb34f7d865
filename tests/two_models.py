"""A job of two models of different classes, whose rows take turns, and the jobs of each model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.jobs import job_values, prompt_rows, write_table
from tests.tiny import tiny

MODELS = ("wan", "ltx")
# Sizes that both take.
DEFAULTS = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32}


def two_model_rows(count: int) -> list[dict[str, Any]]:
    """Rows of both models in turn. `decode_timestep` is an argument of LTX, and nothing to Wan."""
    rows = [
        row | {"decode_timestep": 0.05, "model": MODELS[at % 2]} for at, row in enumerate(prompt_rows(count))
    ]
    return [row | ({"seed": None} if row["tag"] == "row 1" else {}) for row in rows]


def two_models(folder: Path, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    table = write_table(folder / "t.parquet", rows)
    values = job_values(table, folder / "out", **more) | {"defaults": DEFAULTS}
    del values["model"]
    return values | {"models": {"wan": str(tiny("wan")), "ltx": {"path": str(tiny("ltx"))}}}


def one_model(folder: Path, rows: list[dict[str, Any]], model: str, **more: Any) -> dict[str, Any]:
    """Return the job of those rows that one of the two models renders."""
    own = [row for row in rows if row["model"] == model]
    table = write_table(folder / f"{model}.parquet", own)
    return job_values(table, folder / f"out-{model}", model=model, **more) | {"defaults": DEFAULTS}
