"""`make chaos`: a job of 2,000 rows on three hosts, while faults of every kind befall it."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from functools import partial
from pathlib import Path
from random import SystemRandom

from tests.servers import bucket_on, moto
from tools.chaos.chaos import chaos
from tools.chaos.network import why_not
from tools.chaos.storm import Forecast


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().getrandbits(32), help="of all chance")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--gap", type=float, default=12, help="longest between two faults, in seconds")
    asked = parser.parse_args()
    if missing := why_not():
        sys.exit(missing)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="ffc", ignore_cleanup_errors=True) as folder:
        os.environ["FRAMEFLEET_CACHE"] = f"{folder}/cache"
        with moto(Path(folder)) as endpoint:
            chaos(
                bucket_on(endpoint),
                Path(folder),
                num_rows=asked.rows,
                forecast=Forecast(seed=asked.seed, num_faults=asked.faults, gap_s=(2, asked.gap)),
                say=partial(print, flush=True),
            )


if __name__ == "__main__":
    main()
