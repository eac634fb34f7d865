"""`python -m tests.standin [POINT ...]`: what memory that runs out and broken GPUs do to rows, as a table."""

from __future__ import annotations

import sys
from typing import get_args

import torch

from tests.standin.install import install


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    install()
    # After CUDA's stand-in is there.
    from framefleet import load_model
    from tests.standin.faulted import POINTS, Fault, faulted, plain
    from tests.tiny import tiny

    model = load_model(tiny("wan"), dtype="fp32", device="cuda")
    expected = plain(model)
    print("| point | fault | rows exact | rows wrong | begun again | blamed | raised |\n|" + " --- |" * 7)
    is_fine = True
    for point in POINTS:
        for fault in get_args(Fault) if not names or point.name in names else ():
            seen = faulted(model, point, fault, expected)
            blamed = ", ".join(seen.blamed) or "nobody"
            cells = (point.name, fault, seen.exact, seen.wrong, seen.again, blamed, seen.raised)
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            is_fine = is_fine and seen.is_fine
    sys.exit(not is_fine)


if __name__ == "__main__":
    main(sys.argv[1:])
