"""Rows that were rendered with options, again: by framefleet, and by a script that makes the same calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framefleet import Store, replay, replay_script
from framefleet.pipeline.outputs.parts.parts import find_record
from tests.rendered import rendered, run_script

CACHED: dict[str, Any] = {
    "cache": {"type": "mag", "mag_ratios": [1.0, 0.98]},
    "quantization": {"backend": "torchao", "type": "int8_weight_only", "components": ["text_encoder"]},
    "offload": "group",
    "vae_slicing": True,
}
WEIGHED: dict[str, Any] = {
    "attention": "auto",
    "layerwise_casting": "fp8_e4m3",
    "offload": {"type": "group", "blocks": 2, "disk": "here"},
    "vae_tiling": True,
}


@pytest.fixture(scope="module", params=[CACHED, WEIGHED], ids=["cached", "weighed"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    folder = tmp_path_factory.mktemp("options")
    options = dict(request.param)
    if "disk" in options["offload"]:
        options["offload"] = options["offload"] | {"disk": str(folder / "disk")}
    return rendered(folder, "wan", **options)


def test_a_replayed_row_is_the_very_same_clip(output: tuple[str, list[str]]) -> None:
    replayed = replay(output[0], output[1][1])
    assert replayed.is_equal
    assert replayed.differences == ()


def test_a_script_that_makes_the_same_calls_yields_the_same_frames(
    output: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it may name a folder for weights
    assert run_script(replay_script(output[0], output[1][0])).startswith("the same frames: ")


def test_records_hold_what_was_asked_for_and_what_auto_became(output: tuple[str, list[str]]) -> None:
    record = find_record(Store(output[0]), output[1][0])
    numerics, environment = json.loads(record.numerics), json.loads(record.environment)
    assert numerics["offload"]["type"] == "group"
    assert str(Path(output[0]).parent / "disk") not in record.numerics
    if "attention" in numerics:
        assert (numerics["attention"], environment["attention"]) == ("auto", "_native_flash")
    else:
        assert environment["torchao"]
