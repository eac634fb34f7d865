"""A table rendered by Ray Data alone, as well as a short script does it (docs/compared.md).

    python examples/ray_data_baseline.py table.parquet --model MODEL --output OUT [--workers 2] [--gpus 1]

It goes on where it stopped, restarts workers that die, and keeps records: see examples/plain_rows.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

sys.path.insert(0, str(Path(__file__).parent))
from plain_rows import Renderer, is_done, key_of


class RowActor:
    """One model in one actor. Ray Data starts it anew when its process dies."""

    def __init__(self, model: str, output: str, device: str) -> None:
        self._renderer = Renderer(model, Path(output), device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = [json.loads(text) for text in batch["row"]]
        return {"is_done": [self._renderer.render(row) for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker")
    options = parser.parse_args()

    table = {key_of(row): row for row in pq.read_table(options.table).to_pylist()}
    left = [row for row in table.values() if not is_done(options.output, row)]
    print(f"{len(table)} rows, {len(table) - len(left)} done")
    if left:
        _render(left, options)
    num_done = sum(is_done(options.output, row) for row in table.values())
    print(f"{num_done} done, {len(table) - num_done} failed")
    sys.exit(0 if num_done == len(table) else 1)


def _render(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Hand the rows out one by one, whoever is free: they take unlike times."""
    ray.init("local", num_cpus=options.workers + 1, include_dashboard=False, log_to_driver=True)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    # As text: Ray Data would make columns of unlike cells alike.
    texts = pa.table({"row": [json.dumps(row, default=str) for row in rows]})
    device = "cuda" if options.gpus else "cpu"
    results = (
        ray.data.from_arrow(texts)
        .repartition(len(rows))
        .map_batches(
            RowActor,
            fn_constructor_args=(options.model, str(options.output.absolute()), device),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=options.workers),
            num_cpus=1,
            num_gpus=options.gpus or None,
        )
    )
    for _ in results.iter_rows():
        pass
    ray.shutdown()


if __name__ == "__main__":
    main()
