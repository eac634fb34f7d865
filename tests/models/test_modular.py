"""Modular pipelines of diffusers: found out, checked, rendered in company and again as all others are."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ClassifierFreeGuidance, SkipLayerGuidance

from framefleet import ModelError, Request, load_model, replay, replay_script
from framefleet.pipeline.model.modular import fields_given
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.signature import parameters_of
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.fields import PICTURES
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.request_checks import checked
from framefleet.pipeline.rows.tables.rows import Finder
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, write_job, write_table
from tests.loras import save_lora
from tests.modular import plain, plain_frames
from tests.pictures import write_starts
from tests.tiny import SMALLEST, tiny
from tests.unaudited import clips_in_order, unaudited

PROMPTS = ("a red ball", "一只绿色的猫在雨中奔跑", "a dog runs", "海")
STEPS, SCALES = (2, 4, 3, 2), (2.0, 3.0, 5.5, 4.0)
INDEX = "modular_model_index.json"


def rows_of(name: str, **more: Any) -> list[Request]:
    """Rows that differ in prompt, seed, steps and guidance."""
    names = ("prompt", "num_inference_steps", "guidance_scale")
    cells = (dict(zip(names, values, strict=True)) for values in zip(PROMPTS, STEPS, SCALES, strict=True))
    return [Request(arguments={**SMALLEST[name], **row, **more}, seed=seed) for seed, row in enumerate(cells)]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("wan_modular", {}),
        ("wan_moe_modular", {"guidance_scale_2": 1.5}),
        ("ltx_modular", {}),
        ("flux_modular", {}),
        ("anima", {"negative_prompt": "blurry"}),  # of which diffusers has no other pipeline
    ],
)
def test_rows_in_company_are_those_of_plain_modular_calls(name: str, more: dict[str, Any]) -> None:
    model, rows = load_model(tiny(name), dtype="fp32"), rows_of(name, **more)
    clips, pipe = clips_in_order(unaudited(model), rows), plain(tiny(name))
    for row in rows:
        assert np.array_equal(clips[row.seed].frames, plain_frames(pipe, row))
    assert np.mean([clip.batch_size for clip in clips]) > 1
    assert len({clip.frames_sha256 for clip in clips}) == len(rows)


def test_a_scale_is_of_its_row_and_the_models_own_guiders_stay() -> None:
    model = load_model(tiny("wan_moe_modular"), dtype="fp32")
    row = rows_of("wan_moe_modular")[0]
    digests = set()
    for scales in ({}, {"guidance_scale": 6.0}, {"guidance_scale_2": 6.0}):
        (clip,) = clips_in_order(unaudited(model), [Request(arguments=row.arguments | scales, seed=0)])
        digests.add(clip.frames_sha256)
    assert len(digests) == 3
    assert (model.pipe.guider.guidance_scale, model.pipe.guider_2.guidance_scale) == (5.0, 3.0)


@pytest.mark.parametrize("name", ["wan_modular", "echo", "anima", "minimax_h3", "ltx2_5_modular", "flux3"])
def test_a_row_is_rendered_again_from_its_record_and_by_a_script(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scale = {"guidance_scale": 3.5} if name in ("wan_modular", "anima") else {}
    cells = [{"prompt": "一只猫", "seed": seed, **scale} for seed in range(2)]
    values = job_values(write_table(tmp_path / "t.parquet", cells), tmp_path / "out", model=name)
    output, row_ids = render_here(values | {"defaults": SMALLEST[name]}, is_mixed=not scale)
    assert replay(output, row_ids[1]).is_equal
    script = replay_script(output, row_ids[0])
    exec(compile(script, "again.py", "exec"), {})
    assert capsys.readouterr().out.startswith("the same frames")
    assert "import framefleet" not in script and "from framefleet" not in script
    assert not scale or "guider.new(enabled=True, guidance_scale=3.5" in script


def test_every_modular_pipeline_that_is_seen_has_a_signature_with_a_prompt() -> None:
    names = {name for name in dir(diffusers) if name.endswith("ModularPipeline")} - {"ModularPipeline"}
    unseen = {name for name in names if fields_given(name).isdisjoint(PICTURES)}
    assert unseen == {"MiniMaxMusic3ModularPipeline"}  # sound alone
    parameters = {
        name: {p.name: p for p in parameters_of(class_named(name).__call__) if p.kind} for name in names
    }
    assert all(of["prompt"].kind == "str" for of in parameters.values())
    assert not {"batch_size", "generator", "output_type"} & {*chain.from_iterable(parameters.values())}
    assert parameters["ZImageModularPipeline"]["guidance_scale"].default is None  # its guider is off
    assert {"stg_scale", "audio_stg_scale"} <= parameters["LTX2ModularPipeline"].keys()


@pytest.mark.parametrize(
    ("name", "cells", "problem"),
    [
        ("wan_modular", {"height": 17}, "height is 17, but WanModular renders multiples of 16"),
        ("wan_modular", {"num_frames": 6}, "num_frames is 6, but WanModular renders 4k + 1 frames"),
        ("wan_modular", {"guidance_scale": "much"}, "guidance_scale is 'much', but it must be a finite"),
        ("wan_modular", {"guidance_scale": 1}, "guidance_scale is 1.0, but that switches guidance off"),
        ("anima", {"num_inference_steps": 2.5}, "num_inference_steps is 2.5, but it must be a whole"),
        ("sdxl_modular", {"strength": 0.5}, "strength is 0.5, but no block reads it in a row"),
        ("sdxl_modular", {"control_image": "picture-0.png"}, "but the model has no controlnet"),
        ("sdxl_modular", {"mask_image": "picture-0.png"}, "image is empty, but a row with these arguments"),
    ],
)
def test_a_row_that_the_blocks_cannot_render_is_refused_in_the_plan(
    name: str, cells: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    write_starts(tmp_path, num_frames=1)
    table = write_table(tmp_path / "t.parquet", [{"prompt": "a cat", **cells}])
    values = job_values(table, tmp_path / "out", model=name) | {"defaults": SMALLEST[name]}
    ended = command("plan", write_job(tmp_path / "job.yaml", values), exits=2)
    said = " ".join(ended.stderr.split())
    assert "row 0: " in said and problem in said and "hint: " in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"defaults": {"guidence_scale": 3}}, "did you mean 'guidance_scale'?"),
        ({"defaults": {"num_frames": 5.5}}, "num_frames is 5.5, but it must be a whole number"),
        ({"model": {"cache": "first_block"}}, "does not work in WanModularPipeline"),
        ({"defaults": {"guidance_scale": "linear(6, 2)"}}, "guidance_scale"),
    ],
)
def test_a_job_that_no_row_can_mend_is_refused_in_the_plan(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "t.parquet", [{"prompt": "a cat"}])
    values = job_values(table, tmp_path / "out", model="wan_modular") | change
    values["model"] = {"path": str(tiny("wan_modular")), **change.get("model", {})}
    ended = command("plan", write_job(tmp_path / "job.yaml", values), exits=2)
    assert problem in " ".join(ended.stderr.split()) and "hint: " in ended.stderr


def test_a_default_that_no_block_reads_is_not_in_the_rows_arguments() -> None:
    spec = inspect_model(tiny("sdxl_modular"))
    row = Request(arguments={"prompt": "a cat", **SMALLEST["sdxl_modular"]})
    arguments = checked(row, spec, BUILT_IN["generate"], finder=Finder()).arguments
    assert "strength" not in arguments and "guidance_scale" in arguments


def test_what_a_model_is_called_with_is_shown() -> None:
    shown = command("model", "info", tiny("wan_moe_modular")).stdout
    assert "pipeline:  Wan22ModularPipeline (video)" in shown
    assert "transformer_2" in shown and "multiples of 16" in shown


def test_a_guider_of_the_models_own_sets_the_defaults(tmp_path: Path) -> None:
    folder = with_guider(tmp_path, ClassifierFreeGuidance(guidance_scale=2.5, start=0.3))
    assert inspect_model(folder).defaults()["guidance_scale"] == 2.5
    row = Request(arguments={"prompt": "a cat", **SMALLEST["wan_modular"]}, seed=1)
    (clip,) = clips_in_order(unaudited(load_model(folder, dtype="fp32")), [row])
    assert np.array_equal(clip.frames, plain_frames(plain(folder), row))


def test_a_guider_that_changes_the_network_between_rows_is_refused(tmp_path: Path) -> None:
    folder = with_guider(tmp_path, SkipLayerGuidance(skip_layer_guidance_layers=[1]))
    with pytest.raises(ModelError, match="changes the network around each forward"):
        load_model(folder)


def with_guider(parent: Path, guider: Any) -> Path:
    """Return a copy of the tiny Wan that has a guider of its own beside the networks."""
    folder = Path(shutil.copytree(tiny("wan_modular"), parent / "wan"))
    guider.save_pretrained(folder / "guider")
    kind = ["diffusers", type(guider).__name__]
    place = {"pretrained_model_name_or_path": "org/name", "subfolder": "guider", "type_hint": kind}
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"guider": [*kind, place]}))
    return folder


def test_loras_and_options_work_as_with_other_pipelines(tmp_path: Path) -> None:
    file = save_lora("wan", "style", tmp_path)
    model = load_model(
        tiny("wan_modular"), dtype="bf16", loras={"style": file}, vae_tiling=True, attention="native"
    )
    rows = rows_of("wan_modular", lora="style:0.5")
    clips = clips_in_order(unaudited(model), rows)
    pipe = plain(tiny("wan_modular"), dtype=torch.bfloat16)
    pipe.vae.enable_tiling()
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name="style")
    pipe.set_adapters(["style"], [0.5])
    pipe.transformer.eval()
    for row in rows:
        arguments = {name: value for name, value in row.arguments.items() if name != "lora"}
        frames = plain_frames(pipe, Request(arguments=arguments, seed=row.seed))
        assert np.array_equal(clips[row.seed].frames, frames)
