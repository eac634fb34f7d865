"""Measure tiny pipelines on a fleet: `python -m tests.conformance [NAME ...]`, without names all of them.

Writes what docs/models.md tells of their classes, and the page.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import diffusers

import tests.conftest  # noqa: F401  the token of the cluster, before Ray is imported
from framefleet.jobs.model.page import page
from framefleet.pipeline.model.families.measured import Finding, Measured, read_measured, write_measured
from tests.conformance.classes import classes_by_kind
from tests.conformance.company import rendered_by_fleet
from tests.conformance.finding import compare
from tests.conformance.plain import plain_calls
from tests.conformance.reasons import NOT_RENDERED
from tests.jobs import ROOT
from tests.mixed import DTYPES, mixed_table
from tests.servers import warm_cluster
from tests.tiny import SMALLEST

DTYPE = "bf16"  # what models are rendered in; the tests measure in fp32


def main(names: list[str]) -> int:
    """Measure the tiny pipelines of these names."""
    with warm_cluster() as address:
        for name in names or sorted(SMALLEST):
            print(name, found := measure(name, address), flush=True)
            write_with(name, found)
    return 0


def write_with(name: str, found: Finding) -> None:
    """Write all findings, and the page, with that of `name` as it is now."""
    findings = {**read_measured().findings, name: found}
    write_measured(
        Measured(
            diffusers=diffusers.__version__,
            findings={name: finding for name, finding in findings.items() if name in SMALLEST},
            classes=classes_by_kind(),
            not_rendered=NOT_RENDERED,
        )
    )
    (ROOT / "docs" / "models.md").write_text(page(), encoding="utf-8")


def measure(name: str, address: str) -> Finding:
    """Render mixed rows on the cluster at `address`, and each alone by a plain call."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = mixed_table(name, folder)
        found = rendered_by_fleet(name, DTYPE, rows, folder, address=address)
        plain = plain_calls(name, DTYPES[DTYPE], rows, folder)
        return compare(name, {row["seed"]: made for row, made in zip(rows, plain, strict=True)}, found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
