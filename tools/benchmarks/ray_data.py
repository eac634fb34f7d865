"""Ray Data as its guide to batch inference shows it: read, map_batches with actors, write.

A mixed table cannot be stacked by hand, so each row is still one call; rows of a uniform one go in batches.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import ray.data

from tools.benchmarks.plain import PlainRenderer


class Actor:
    """One pipeline in one actor."""

    def __init__(self, model: Path, output: Path, batch: int) -> None:
        self._renderer = PlainRenderer(model, output)
        self._batch = batch

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        rows: list[dict[str, Any]] = batch.to_dict("records")
        chunks = [rows[first : first + self._batch] for first in range(0, len(rows), self._batch)]
        return pd.DataFrame([record for chunk in chunks for record in self._renderer.render(chunk)])


def render_ray_data(
    table: Path, model: Path, output: Path, *, workers: int, rows: int, batch: int = 1
) -> None:
    """Render with a pool of actors; records go to output/records."""
    # One CPU more than the actors take: with none left the reading task waits for ever.
    ray.init(
        "local",
        num_cpus=workers + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        (
            ray.data.read_parquet(str(table))
            # A small table is one block, and one block keeps one actor busy; one row a block balances best.
            .repartition(rows // batch)
            .map_batches(
                Actor,
                fn_constructor_args=(model, output, batch),
                batch_size=batch,
                batch_format="pandas",
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=1,
            )
            .write_parquet(str(output / "records"))
        )
    finally:
        ray.shutdown()
