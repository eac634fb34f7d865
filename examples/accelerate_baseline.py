"""A table rendered by a loop under accelerate (docs/compared.md).

    accelerate launch --num_processes 2 accelerate_baseline.py table.parquet --model MODEL --output OUT

Each process renders its share of the rows that have no record yet: see examples/plain_rows.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq
from accelerate import PartialState

sys.path.insert(0, str(Path(__file__).parent))
from plain_rows import Renderer, is_done, key_of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    state = PartialState()
    table = {key_of(row): row for row in pq.read_table(options.table).to_pylist()}
    left = [row for row in table.values() if not is_done(options.output, row)]
    state.wait_for_everyone()  # all have seen the same rows
    renderer = Renderer(options.model, options.output, str(state.device))
    with state.split_between_processes(left) as own:
        for row in own:
            renderer.render(row)
    state.wait_for_everyone()
    num_done = sum(is_done(options.output, row) for row in table.values())
    state.print(f"{num_done} of {len(table)} rows done")
    sys.exit(0 if num_done == len(table) else 1)


if __name__ == "__main__":
    main()
