"""One class of each network: batched rows are plain calls, and all is as measured.json says."""

from __future__ import annotations

import inspect
from pathlib import Path

import diffusers
import pytest

from framefleet.pipeline.model.registry import class_named, class_of
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.plugins.models.descriptions import Finding, class_states, read_measured
from tests.long import long_but
from tests.mixed import DTYPES, mixed_table
from tests.tiny import MEASURED, TYPICAL
from tools.conformance.batches import rendered_here
from tools.conformance.classes import classes_by_kind
from tools.conformance.finding import compare
from tools.conformance.plain import plain_calls
from tools.conformance.reasons import LOST_PARTS

AGAIN = "run `python -m tools.conformance {}` and look at what changes"


def network_of(name: str) -> str:
    """Return what a tiny pipeline's constructor asks of its denoisers; its class, where it does not say."""
    class_name = read_measured().findings[name].class_name
    asked = inspect.signature(class_named(class_name)).parameters
    types = [str(asked[part].annotation) for part in DENOISERS if part in asked]
    return ", ".join(types) or class_name


def one_of_each_network() -> list[str]:
    """Return those whose networks are all that there are; `make conformance` renders the others too."""
    names = MEASURED.keys() & read_measured().findings.keys()
    names = sorted(names, key=lambda name: (name in TYPICAL, -len(name), name))
    return sorted({network_of(name): name for name in names}.values())


@pytest.mark.parametrize("name", long_but(one_of_each_network(), *TYPICAL))
def test_rows_in_company_are_those_of_plain_calls_as_was_measured(name: str, tmp_path: Path) -> None:
    rows = mixed_table(name, tmp_path, most=4)
    found = rendered_here(name, "fp32", rows, tmp_path)
    plain = list(plain_calls(name, DTYPES["fp32"], rows, tmp_path))
    assert len({(made.frames, made.sound) for made in plain}) > len(rows) // 2  # what they differ in is seen
    now = compare(name, {row["seed"]: made for row, made in zip(rows, plain, strict=True)}, found)
    assert _said(now) == _said(read_measured().findings[name]), (now, AGAIN.format(name))


def _said(finding: Finding) -> tuple[object, ...]:
    """Return what few rows and many agree in."""
    return finding.class_name, finding.makes, finding.equal == finding.rows, finding.sound, finding.why


def test_the_page_lists_every_class_of_the_installed_diffusers() -> None:
    measured = read_measured()
    assert measured.diffusers == diffusers.__version__
    assert measured.classes == classes_by_kind()
    assert measured.findings.keys() == MEASURED.keys()


@pytest.mark.parametrize("part", sorted(set(LOST_PARTS.values())))
def test_parts_that_diffusers_lost_are_still_lost(part: str) -> None:
    assert class_of("diffusers", part) is None, "measure its classes: tools/conformance/reasons.py"


def test_every_class_of_diffusers_was_tried() -> None:
    untried = [name for name, _, state in class_states(read_measured()) if state == "not tried"]
    assert untried == []


def test_what_is_not_exact_or_not_shared_has_its_reason() -> None:
    for finding in read_measured().findings.values():
        if finding.equal < finding.rows or finding.mean_batch <= 1 or finding.sound == "dropped":
            assert finding.why, f"{finding.class_name}: say why in tools/conformance/reasons.py"
