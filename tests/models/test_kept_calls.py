"""A row is checked alike whether its pipeline's class was asked, or what it said once was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.model.specs import pipeline_call
from framefleet.pipeline.model.specs.schedulers import resolve_scheduler
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.models.descriptions import read_measured
from tests.configs import WAN
from tests.tiny import tiny

CLASSES = sorted({finding.class_name for finding in read_measured().findings.values()})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("names", [CLASSES[::16], pytest.param(CLASSES, marks=pytest.mark.long)], ids=len)
def test_every_class_is_kept_as_it_is(names: list[str]) -> None:
    for name in names:
        classes = {part: ["diffusers", config.get("_class_name", "Unread")] for part, config in WAN.items()}
        configs: dict[str, Any] = WAN | {"index": {"_class_name": name, **classes}}
        said = pipeline_call.call_of.__wrapped__(name, configs)  # type: ignore[attr-defined]
        kept = [pipeline_call.call_of(name, configs) for _ in range(2)]
        assert kept == [said, said], name
        # Of their parameters, as `repr` tells True from 1. Sets have no order of their own.
        assert {repr(call.parameters) for call in kept} == {repr(said.parameters)}, name


@pytest.mark.parametrize("name", ["wan", "sd", "opensora"])
def test_a_model_and_its_schedulers_are_kept_as_they_are(name: str) -> None:
    first, second = inspect_model(tiny(name)), inspect_model(tiny(name))
    assert repr(first.parameters) == repr(second.parameters)
    assert first == second
    chosen = [resolve_scheduler(None, first) for _ in range(2)]
    assert repr(chosen[0]) == repr(chosen[1])
    assert chosen[0] == resolve_scheduler.__wrapped__(None, first)  # type: ignore[attr-defined]


def test_what_a_table_has_any_number_of_is_not_kept(tmp_path: Path) -> None:
    spec = inspect_model(tiny("sd"))
    before = set((tmp_path / "cache" / "classes").iterdir())
    for offset in range(3):
        resolve_scheduler(f"euler(steps_offset={offset})", spec)
    assert not set((tmp_path / "cache" / "classes").iterdir()) - before
