"""Measure tiny pipelines on a fleet: `python -m tools.conformance [--here] [NAME ...]`, without names all.

Writes what docs/reference/models.md says of their classes, and the page.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import diffusers

from framefleet.pipeline.model.load import for_diffusers
from framefleet.pipeline.model.specs.dtypes import ResolvedDType, resolved
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.models.descriptions import MEASURED as FILE, Finding, Measurements, read_measured
from tests.jobs import ROOT
from tests.mixed import mixed_table
from tests.servers import warm_cluster
from tests.tiny import MEASURED, tiny
from tools.conformance.batches import rendered_by_fleet, rendered_here
from tools.conformance.classes import classes_by_kind
from tools.conformance.finding import compare
from tools.conformance.plain import plain_calls
from tools.conformance.reasons import NOT_RENDERED
from tools.models_page import page

WORKERS = 2
_IN_FP32 = ("sana_wm", "cosmos_v2w")  # torch has none of their matrix products, or pooling, in bf16 on a CPU
ROWS = 16  # so many that each worker has some at once


def main(arguments: list[str] | None = None) -> int:
    """Measure the tiny pipelines that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="tiny pipelines of tests/tiny.py")
    parser.add_argument("--here", action="store_true", help="in this process, without a fleet")
    parser.add_argument("--classes", action="store_true", help="measure nothing: list diffusers' classes")
    options = parser.parse_args(arguments)
    if unknown := {*options.names} - {*MEASURED}:
        parser.error(f"no tiny pipeline is called {', '.join(sorted(unknown))}")
    if options.classes:
        _write(replace(read_measured(), classes=classes_by_kind(), not_rendered=NOT_RENDERED))
        return 0
    with nullcontext() if options.here else warm_cluster() as address:
        failed = [name for name in options.names or sorted(MEASURED) if not _is_measured(name, address)]
    return 1 if failed else 0


def _is_measured(name: str, address: str | None) -> bool:
    try:
        found = measure(name, address)
    except Exception as error:  # whatever its pipeline raises: others are measured all the same
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return False
    print(name, found, flush=True)
    write_with(name, found)
    return True


def write_with(name: str, found: Finding) -> None:
    """Write all findings, and the page, with that of `name` as it is now."""
    read_measured.cache_clear()  # another process may measure others
    known = read_measured()
    findings = {name: old for name, old in known.findings.items() if name in MEASURED}
    is_current = known.diffusers == diffusers.__version__  # reading all classes takes half a minute
    _write(
        Measurements(
            diffusers=diffusers.__version__,
            findings={**findings, name: found},
            classes=known.classes if is_current else classes_by_kind(),
            not_rendered=NOT_RENDERED,
        )
    )


def _write(measured: Measurements) -> None:
    values = asdict(measured)
    values["findings"] = dict(sorted(values["findings"].items()))
    FILE.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    read_measured.cache_clear()
    (ROOT / "docs/reference/models.md").write_text(page(), encoding="utf-8")


def measure(name: str, address: str | None) -> Finding:
    """Render mixed rows on the cluster at `address`, or in this process, and each alone by a plain call."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows, dtype = mixed_table(name, folder, most=ROWS), dtype_on_gpus(name)
        if address:
            found = rendered_by_fleet(name, dtype, rows, folder, address=address, workers=WORKERS)
        else:
            found = rendered_here(name, dtype, rows, folder)
        plain = plain_calls(name, for_diffusers(dtype), rows, folder)
        made = {row["seed"]: one for row, one in zip(rows, plain, strict=True)}
        return compare(name, made, found, workers=WORKERS if address else 0)


def dtype_on_gpus(name: str) -> ResolvedDType:
    """Return what `dtype: auto` is on a GPU. The tests measure in fp32."""
    if name in _IN_FP32:
        return "fp32"
    return resolved("auto", device="cuda", auto=inspect_model(tiny(name)).family.dtypes)


if __name__ == "__main__":
    sys.exit(main())
