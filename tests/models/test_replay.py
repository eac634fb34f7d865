"""Rows of an output rendered again from their records: by framefleet, and by a script without it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import Given, JobError, ModelError, Store, TableError, replay, replay_script
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import Recipe
from tests.here import KINDS, rendered, run_script
from tests.outputs import change_records
from tests.tiny import tiny

OPTIONS: dict[str, dict[str, Any]] = {
    "cached": {
        "cache": {"type": "mag", "mag_ratios": [1.0, 0.98]},
        "quantization": {"backend": "torchao", "type": "int8_weight_only", "components": ["text_encoder"]},
        "offload": "group",
        "vae_slicing": True,
    },
    "weighed": {
        "attention": "auto",
        "layerwise_casting": "fp8_e4m3",
        "offload": {"type": "group", "blocks": 2, "disk": "here"},
        "vae_tiling": True,
    },
}


@pytest.fixture(scope="module", params=[*sorted(KINDS), *OPTIONS])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in KINDS:
        return rendered(folder, request.param)
    options = dict(OPTIONS[request.param])
    if "disk" in options["offload"]:
        options["offload"] = options["offload"] | {"disk": str(folder / "disk")}
    return rendered(folder, "wan", **options)


def test_a_replayed_row_is_the_very_same_clip(output: tuple[str, list[str]]) -> None:
    replayed = replay(output[0], output[1][1])
    assert replayed.is_equal
    assert all(then == now for _, then, now in replayed.digests)
    assert replayed.differences == ()


def test_a_script_yields_the_same_frames(
    output: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it may name a folder for weights
    assert run_script(replay_script(output[0], output[1][0])).startswith("the same frames: ")


@pytest.mark.parametrize("output", OPTIONS, indirect=True)
def test_records_hold_what_was_asked_for_and_what_auto_became(output: tuple[str, list[str]]) -> None:
    record = find_record(Store(output[0]), output[1][0])
    numerics, environment = json.loads(record.numerics), json.loads(record.environment)
    assert numerics["offload"]["type"] == "group"
    assert str(Path(output[0]).parent / "disk") not in record.numerics
    if "attention" in numerics:
        assert (numerics["attention"], environment["attention"]) == ("auto", "_native_flash")
    else:
        assert environment["torchao"]


@pytest.fixture(scope="module")
def rendered_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    return rendered(tmp_path_factory.mktemp("once"), "wan")


@pytest.fixture
def wan(rendered_once: tuple[str, list[str]], tmp_path: Path) -> tuple[Path, str]:
    """An output that may be changed, and a row of it."""
    return shutil.copytree(rendered_once[0], tmp_path / "out"), rendered_once[1][0]


def test_a_script_without_framefleet_yields_the_same_frames_and_says_when_they_differ(
    wan: tuple[Path, str], tmp_path: Path
) -> None:
    script = tmp_path / "again.py"
    script.write_text(replay_script(*wan), encoding="utf-8")
    run = subprocess.run([sys.executable, "-P", str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("the same frames: ")
    with pytest.raises(SystemExit, match="other frames: "):
        run_script(script.read_text(encoding="utf-8").replace("SEED = ", "SEED = 1"))


def test_a_model_whose_files_changed_is_refused_and_one_that_moved_is_taken(
    wan: tuple[Path, str], tmp_path: Path
) -> None:
    output, row_id = wan
    moved = shutil.copytree(tiny("wan"), tmp_path / "elsewhere")
    replayed = replay(output, row_id[:8], Given(model=str(moved)))
    assert replayed.is_equal
    lines = repr(replayed).splitlines()
    assert lines[:3] == ["Replayed", f"  row: {row_id}", "  verdict: bit-exact"] and len(lines) <= 6
    config = moved / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ModelError, match=r"other files: scheduler/scheduler_config\.json"):
        replay(output, row_id, Given(model=str(moved)))


def test_a_record_that_asks_for_all_memory_is_refused(wan: tuple[Path, str]) -> None:
    def larger(table: pa.Table) -> dict[str, list[str]]:
        cells = table["arguments"].to_pylist()
        return {"arguments": [cell.replace('"height":16', '"height":1099511627776') for cell in cells]}

    change_records(wan[0], larger)
    with pytest.raises(TableError, match="the record's height is 1099511627776"):
        replay(*wan)


def test_a_row_that_fails_is_not_one_of_other_frames(
    wan: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(pipe: Any, request: Any) -> None:
        raise KeyError("broken")

    monkeypatch.setitem(BUILT_IN, "generate", Recipe(name="generate", function=fail))
    with pytest.raises(JobError, match="cannot be rendered again: KeyError: 'broken'"):
        replay(*wan)
