"""`python -m tools.fuzz`: many cases; counts by kind on stdout, each defect as it is found."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tools.fuzz.fuzz import Result, fuzz
from tools.fuzz.kinds import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="repeatable")
    parser.add_argument("--keep", action="store_true", help="keep all files, and show what was printed")
    given = parser.parse_args()
    numbers = [given.only] if given.only is not None else range(given.cases)
    folder = Path(tempfile.mkdtemp(prefix="framefleet-fuzz-"))
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    slowest: list[Result] = []
    for result in fuzz(given.seed, numbers, folder, kinds=given.kind or (), keep=given.keep):
        counts[result.kind][
            result.defect or {0: "accepted", 2: "refused"}.get(result.outcome.code or 0, "other")
        ] += 1
        slowest = sorted([*slowest, result], key=lambda one: -one.outcome.seconds)[:3]
        if result.defect or given.keep:
            print(
                f"--- {result.number} {result.kind}: {result.defect} ({result.outcome.seconds:.1f} s)",
                flush=True,
            )
            print(
                f"{result.told!r}\n{result.outcome.printed[-3000:]!r}\n{folder / str(result.number)}",
                flush=True,
            )
    for kind, found in counts.items():
        if found:
            print(f"{kind:<14}", ", ".join(f"{count} {word}" for word, count in sorted(found.items())))
    print("slowest:", ", ".join(f"{one.number} {one.kind} {one.outcome.seconds:.1f} s" for one in slowest))
    known = {"accepted", "refused", "other"}
    defects = sum(count for found in counts.values() for word, count in found.items() if word not in known)
    print(f"seed {given.seed}: {len(numbers)} cases, {defects} defects")
    return min(defects, 1)


if __name__ == "__main__":
    raise SystemExit(main())
