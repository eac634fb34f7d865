"""Presets: which model is recognised, what rows get from it, and that the table says only what works."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from framefleet.api.models import FRAME_PARAMETERS, PipelineSpec, inspect_model
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.registry import PRESETS, family_of
from framefleet.pipeline.model.license import License, license_of
from framefleet.pipeline.model.sources.folder_source import FolderSource
from framefleet.pipeline.model.specs.dtypes import NAMES
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow
from framefleet.plugins.forecast.license_terms import license_line, terms_of
from framefleet.plugins.ports.crafter.convert import VARIANTS, Variant
from tests.commands import command
from tests.configs import SD, WAN, write_model
from tests.tiny import tiny

ROOT = Path(__file__).parents[2]
_PATCHES = "patch_embedding.weight"  # of a transformer of Wan
WAN_SMALL = {"num_layers": 30, "in_channels": 16, "patch_size": [1, 2, 2]}
WAN_LARGE = {"num_layers": 40, "in_channels": 16, "patch_size": [1, 2, 2]}


def spec_told(folder: Path, preset: Preset, class_name: str, *, default_fps: int | None) -> PipelineSpec:
    """Return what is read from a folder that was converted with this rate."""
    unet = {**preset.match["unet"], "default_fps": default_fps}
    return inspect_model(write_model(folder, class_name, SD | {"unet": unet}))


def wan(folder: Path, transformer: dict[str, Any], **settings: Any) -> PipelineSpec:
    return inspect_model(write_model(folder, "WanPipeline", WAN | {"transformer": transformer}, **settings))


def preset_name(spec: PipelineSpec) -> str | None:
    return spec.preset.name if spec.preset else None


def test_every_entry_of_the_table_is_whole() -> None:
    names = [preset.name for preset in PRESETS]
    assert len(set(names)) == len(names)
    table = tomllib.loads((ROOT / "pipeline/model/families/presets.toml").read_text())
    below = {preset["name"]: prefix for prefix, presets in table.items() for preset in presets}
    assert [below[preset.name] for preset in PRESETS for _ in preset.pipelines] == [
        family_of(name).prefix for preset in PRESETS for name in preset.pipelines
    ]
    for preset in PRESETS:
        assert preset.match and preset.license and preset.inputs
        assert {preset.dtype, *preset.dtypes.values()} <= set(NAMES)
        assert set(preset.dtypes) <= set(preset.parameters)
        assert "num_inference_steps" in preset.arguments and (preset.size or "image" in preset.inputs)
        has_length = bool({*FRAME_PARAMETERS, "segment_frame_length"} & set(preset.arguments))
        assert has_length == bool(preset.fps) or "controls" in preset.inputs  # which are as long as the clip


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_job_asks_for_the_motion_that_a_plain_call_asks_for(tmp_path: Path, variant: Variant) -> None:
    preset = next(preset for preset in PRESETS if preset.name == variant.name)
    spec = spec_told(tmp_path, preset, variant.pipeline.__name__, default_fps=variant.default_fps)
    assert spec.preset == preset and "fps" not in preset.arguments
    assert spec.defaults().get("fps") == variant.default_fps
    page = (ROOT / "docs" / "converted_models.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(f"| `{variant.name}` |"))
    assert (f"{variant.default_fps or 'has none'}") in line.split("|")[-2]


def test_motion_that_a_folder_was_converted_with_goes_before_the_released_models(tmp_path: Path) -> None:
    preset = next(preset for preset in PRESETS if preset.name == "videocrafter2-t2v-512")
    spec = spec_told(tmp_path, preset, "VideoCrafterPipeline", default_fps=12)
    assert (spec.preset, spec.defaults()["fps"]) == (preset, 12)


def test_wan_models_with_equal_transformers_are_told_by_model_index(tmp_path: Path) -> None:
    nothing = {"boundary_ratio": None, "expand_timesteps": False, "transformer_2": [None, None]}
    assert preset_name(wan(tmp_path / "a", WAN_LARGE, boundary_ratio=0.875)) == "wan2.2-t2v-a14b"
    assert preset_name(wan(tmp_path / "b", WAN_LARGE)) == "wan2.1-t2v-14b"
    assert preset_name(wan(tmp_path / "c", WAN_LARGE, **nothing)) == "wan2.1-t2v-14b"
    assert preset_name(wan(tmp_path / "d", WAN_SMALL)) == "wan2.1-t2v-1.3b"


def test_a_class_of_another_kind_is_not_recognised(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "SkyReelsV2Pipeline", WAN | {"transformer": WAN_SMALL})
    assert inspect_model(folder).preset is None


def test_the_preset_stands_behind_the_row_and_the_job_and_before_the_signature(tmp_path: Path) -> None:
    spec = wan(tmp_path, WAN_LARGE, boundary_ratio=0.875)
    given = {"height": 480, "guidance_scale": 6.0, "num_inference_steps": 8}
    table = pa.RecordBatch.from_pylist([{"prompt": "a", **dict.fromkeys(given)}, {"prompt": "b", **given}])
    plan = plan_rows(table.schema, spec, defaults={"num_inference_steps": 30, "guidance_scale_2": None})
    first, second = plan.rows(0, table)
    assert isinstance(first, CheckedRow)
    assert isinstance(second, CheckedRow)
    native = {"height": 720, "width": 1280, "num_frames": 81, "guidance_scale": 4.0}
    assert (native | {"num_inference_steps": 30}).items() <= first.request.arguments.items()
    assert "guidance_scale_2" not in first.request.arguments
    assert first.request.arguments["max_sequence_length"] == 512
    assert (given | {"width": 1280}).items() <= second.request.arguments.items()


def test_plan_shows_the_native_size_of_rows_that_leave_it_open(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\na red ball\n")
    model = shutil.copytree(tiny("wan_known"), tmp_path / "model")
    config = model / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 48}))  # as Wan 2.2 5B
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {_PATCHES: tensors[_PATCHES].repeat(1, 3, 1, 1, 1)}, weights, {"format": "pt"})
    ended = command(
        "plan", "--table", tmp_path / "t.csv", "--model", model, "--output", tmp_path / "out", exits=0
    )
    assert "121 x 704 x 1280, 512 tokens" in ended.output


def test_info_names_the_preset_and_what_it_sets() -> None:
    printed = command("model", "info", tiny("wan_known")).output
    assert "preset:    wan2.1-t2v-1.3b\n" in printed
    assert "defaults:  height 480, width 832, num_frames 81, num_inference_steps 50" in printed
    assert "dtype:     on a GPU bf16, vae fp32\n" in printed
    assert "preset:    none" in command("model", "info", tiny("wan")).output


def test_list_prints_every_preset_with_its_model_and_cuts_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    printed = command("model", "list").output
    for preset in PRESETS:
        assert f" {preset.name} " in printed
        assert all(model in printed for model in preset.models[:1])


WAN_PRESET = next(preset for preset in PRESETS if preset.name == "wan2.1-t2v-1.3b")
# As the cards of these models have it: https://huggingface.co/NAME/raw/main/README.md
CARDS = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ("license: apache-2.0", ""),
    "MiniMaxAI/MiniMax-H3": ("license: other\nlicense_name: minimax-h3-community", "not for use, outputs"),
    "tencent/HunyuanVideo": ("license: other\nlicense_name: tencent-hunyuan-community", "does not apply in"),
    "stabilityai/stable-diffusion-xl-base-1.0": ("license: openrail++", "attachment A"),
    "stabilityai/sdxl-turbo": ("license: other\nlicense_name: sai-nc-community", "no commercial use"),
}


def model(folder: Path, card: str | None) -> FolderSource:
    (folder / "model_index.json").write_text("{}")
    if card is not None:
        (folder / "README.md").write_text(card)
    return FolderSource(str(folder))


@pytest.mark.parametrize("name", CARDS)
def test_what_a_card_says_and_what_plan_prints(name: str, tmp_path: Path) -> None:
    head, unusual = CARDS[name]
    found = license_of(
        model(tmp_path, f"---\nlanguage: en\n{head}\ntags:\n- video\n---\n# A model\n"), None, None
    )
    assert (found.source, found.name) == ("card", head.rpartition(": ")[2])
    terms = terms_of(found.name)
    assert terms is not None
    assert unusual in license_line(found)
    assert bool(unusual) is bool(terms.unusual())


def test_the_job_counts_before_the_card_and_the_card_before_the_preset(tmp_path: Path) -> None:
    source = model(tmp_path, "---\nlicense: mit\n---\n")
    assert license_of(source, WAN_PRESET, "my own") == License(name="my own", source="job")
    assert license_of(source, WAN_PRESET, None) == License(name="mit", source="card")
    (tmp_path / "README.md").unlink()
    assert license_of(model(tmp_path, None), WAN_PRESET, None) == License(name="apache-2.0", source="preset")


@pytest.mark.parametrize(
    "card",
    [
        *(None, "", "# no metadata\nlicense: mit", "---\ntags: [a]\n---\n"),
        *("---\nlicense: other\n---\n", "---\nlicense: mit"),
    ],
)
def test_what_nobody_says_is_unknown(card: str | None, tmp_path: Path) -> None:
    found = license_of(model(tmp_path, card), None, None)
    assert (found.name, found.source, terms_of(found.name)) == ("unknown", "unknown", None)
    assert "set `model.license`" in license_line(found)
    assert "set `engine.license`" in license_line(found, "engine.license")
    usual = license_of(model(tmp_path, card), None, None, usual="minimax-h3")
    assert (usual.name, usual.source) == ("unknown", "unknown"), "what is usual is not recorded"
    published = "weights published for its class are licensed under minimax-h3: not for use, outputs"
    assert published in license_line(usual)


@pytest.mark.parametrize(
    "card",
    [
        "---" + "\n" * 65_000,
        f'---\nlicense:{" " * 65_000}""\n---\n',
        f"---\nlicense: a{' ' * 65_000}''\n---\n",
    ],
    ids=["no end", "quotes behind blanks", "blanks behind a name"],
)
def test_a_card_of_blanks_is_read_at_once(card: str, tmp_path: Path) -> None:
    started = time.thread_time()
    assert license_of(model(tmp_path, card), None, None).source == "unknown"
    assert time.thread_time() - started < 5, "a card in which each blank is looked at again takes hours"


def test_a_hostile_card_gives_one_short_line(tmp_path: Path) -> None:
    card = f"---\nlicense: {'x' * 10_000}\nlicense_name: &a [*a, *a]\n---\n" + "y" * 200_000
    found = license_of(model(tmp_path, card), None, None)
    assert len(found.name) <= 80
    assert "not listed here" in license_line(found)
    control = model(tmp_path, "---\nlicense: a\x1b[31mb\n---\n")
    assert license_of(control, None, None).source == "unknown"
