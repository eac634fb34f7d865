"""Rows that have an image for an IP-adapter, against plain calls; and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import fsspec
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from framefleet import Clip, Given, Inputs, Request, Store, load_model, plan, replay
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import claim_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import FramefleetError, JobError, ModelError, TableError
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.specs.dtypes import torch_dtype
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.second_model import open_second_models
from framefleet.plugins.train.job import TrainJob
from framefleet.plugins.train.resolve import resolve_training
from tests.commands import command
from tests.here import render_here
from tests.ip_adapters import ENCODER, WEIGHTS, plain_pipe, save_ip_adapter
from tests.jobs import job_values, write_job, write_table
from tests.loras import plain_digest, save_lora
from tests.pictures import write_starts
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return save_ip_adapter(tmp_path_factory.mktemp("adapter"))


def rows(pictures: list[str], **more: Any) -> list[dict[str, Any]]:
    """Rows that differ in image, seed and guidance, and share a shape."""
    return [
        {"prompt": f"ball {at}", "seed": at, "ip_adapter_image": pictures[at % len(pictures)]}
        | {"guidance_scale": (1.0, 4.0)[at % 2], "num_inference_steps": 2, "height": 16, "width": 16, **more}
        for at in range(6)
    ]


@pytest.mark.parametrize(
    ("name", "dtype", "scale"),
    [
        ("sd", "fp32", 0.6),
        pytest.param("sdxl", "fp32", 1.0, marks=pytest.mark.long),
        pytest.param("animatediff", "fp32", 1.0, marks=pytest.mark.long),
    ],
)
def test_rows_of_different_images_are_those_of_plain_calls(
    name: str, dtype: Any, scale: float, tmp_path: Path
) -> None:
    given = save_ip_adapter(tmp_path / "adapter", model=name) | {"scale": scale}
    model = load_model(tiny(name), dtype=dtype, ip_adapter=given)
    renderer = unaudited(model, inputs=Inputs([str(tmp_path)], base=str(tmp_path)))
    table = rows(write_starts(tmp_path, num_frames=1), **SMALLEST[name])
    asked = [Request(arguments={k: v for k, v in r.items() if k != "seed"}, seed=r["seed"]) for r in table]
    clips = {clip.request.seed: clip for clip in renderer.render(asked) if isinstance(clip, Clip)}
    pipe, made = plain_pipe(name, given, torch_dtype(dtype)), {}
    for row in asked:
        image = Image.open(tmp_path / row.arguments["ip_adapter_image"]).convert("RGB")
        plain = Request(arguments={**row.arguments, "ip_adapter_image": image}, seed=row.seed)
        made[row.seed] = frames_sha256(to_frames(generate(pipe, plain)))
    assert {seed: clip.frames_sha256 for seed, clip in clips.items()} == made
    assert len(set(made.values())) == len(made)
    assert mean(clip.batch_size for clip in clips.values()) > 1 or name == "animatediff"
    other = replace(asked[0], arguments={**asked[0].arguments, "ip_adapter_image": "picture-1.png"})
    (clip,) = renderer.render([other])
    assert isinstance(clip, Clip) and clip.frames_sha256 != made[0]  # the image counts


def job(folder: Path, adapter: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job whose table lies beside the images."""
    table = write_table(folder / "t.parquet", rows(write_starts(folder, num_frames=1)))
    values = job_values(table, folder / "out", model="sd") | {"defaults": {}}
    return values | {"model": {"path": str(tiny("sd")), "ip_adapter": adapter}, **more}


def resolved(values: dict[str, Any]) -> Any:
    return resolve_job(load_job(values), Callback())


def test_a_row_of_an_ip_adapter_is_recorded_and_replayed_also_where_the_adapter_moved(
    adapter: dict[str, Any], tmp_path: Path
) -> None:
    output, row_ids = render_here(job(tmp_path, adapter))
    claim = claim_of(Store(output))
    assert {f"ip-adapter/{WEIGHTS}", f"ip-adapter/{ENCODER}/config.json"} <= claim.model_files.keys()
    assert claim.job.model and claim.job.model.ip_adapter == load_job(job(tmp_path, adapter)).model.ip_adapter
    moved = shutil.copytree(adapter["path"], tmp_path / "moved")
    assert replay(output, row_ids[0]).is_equal
    assert command("replay", output, row_ids[0], "--ip-adapter", moved).exit_code == 0
    assert "IP-adapters: ip_adapter" in command("replay", output, row_ids[0], "--script").stderr
    other = save_ip_adapter(tmp_path / "other", seed=7)
    with pytest.raises(ModelError, match=f"other files: ip-adapter/{ENCODER}"):
        replay(output, row_ids[0], Given(ip_adapter=other["path"]))
    file = tmp_path / "out" / "job.json"
    values = json.loads(file.read_text())
    values["job"]["model"]["ip_adapter"]["path"] = str(moved)
    file.write_text(json.dumps(values))
    assert replay(output, row_ids[0]).is_equal
    values["job"]["model"]["ip_adapter"]["path"] = "http://10.0.0.1/a"
    file.write_text(json.dumps(values))
    with pytest.raises(JobError, match="its IP-adapter is at"):
        replay(output, row_ids[0])


def test_a_row_is_known_by_the_content_and_the_scale_of_the_adapter(
    adapter: dict[str, Any], tmp_path: Path
) -> None:
    moved = {**adapter, "path": str(shutil.copytree(adapter["path"], tmp_path / "moved"))}
    asked = Request(arguments={"prompt": "a"}, seed=1)
    same, again, scaled, other = (
        resolved(job(tmp_path, given)).first.identity(asked)
        for given in (adapter, moved, adapter | {"scale": 0.5}, save_ip_adapter(tmp_path / "b", seed=7))
    )
    assert same == again
    assert len({same, scaled, other}) == 3


def test_a_file_that_changed_after_the_driver_read_it_is_not_loaded(
    adapter: dict[str, Any], tmp_path: Path
) -> None:
    given = {**adapter, "path": str(shutil.copytree(adapter["path"], tmp_path / "moved"))}
    first = resolved(job(tmp_path, given)).first
    assert load(first.settings, first.files).digests == first.files
    for file in (f"{ENCODER}/model.safetensors", WEIGHTS):
        path = tmp_path / "moved" / file
        save_file({name: value + 1 for name, value in load_file(path).items()}, path)
        with pytest.raises(ModelError, match=f"{file} is corrupted or a different file"):
            load(first.settings, first.files)
        shutil.copy(Path(adapter["path"], file), path)


def test_images_and_adapters_that_do_not_go_together_are_refused(
    adapter: dict[str, Any], tmp_path: Path
) -> None:
    def refusal(**changes: Any) -> FramefleetError:
        with pytest.raises(FramefleetError) as caught:
            resolved(job(tmp_path, adapter) | changes)
        return caught.value

    def of_adapter(model: str = "sd", *, options: Any = (), **changes: Any) -> FramefleetError:
        return refusal(model={"path": str(tiny(model)), "ip_adapter": adapter | changes, **dict(options)})

    without = refusal(model=str(tiny("sd")))
    assert "ip_adapter_image" in without.problem and "model: {ip_adapter:" in without.fix
    training = {"table": "t", "output": "o", "model": {"path": str(tiny("sd")), "ip_adapter": adapter}}
    with pytest.raises(JobError, match="trainings have no images for it"):
        resolve_training(load_job(training | {"train": {"steps": 1}}, kind=TrainJob), Callback())
    bare = refusal(table=str(write_table(tmp_path / "bare.parquet", [{"prompt": "a", "seed": 1}])))
    assert isinstance(bare, TableError) and "have no 'ip_adapter_image'" in bare.problem
    assert "WanPipeline takes no IP-adapter" in of_adapter("wan").problem
    for option, value in (("attention", "native"), ("layerwise_casting", "fp8_e4m3"), ("offload", "model")):
        assert option in of_adapter(options={option: value}).problem
    with pytest.raises(JobError, match="ip_adapter is set"):
        open_second_models({"b": {"path": str(tiny("sd")), "ip_adapter": adapter}})
    link = Path(adapter["path"], "models", "link.safetensors")
    link.symlink_to(tiny("sd") / "unet" / "diffusion_pytorch_model.safetensors")
    for changes, problem in (
        ({"path": "/nowhere/at/all"}, "is not a folder"),
        ({"weights": "no.safetensors"}, "no.safetensors is missing"),
        ({"image_encoder": "../x"}, "relative to its path"),
        ({"weights": "models/ip.bin"}, "name a .safetensors file"),
        ({"weights": f"{ENCODER}/model.safetensors"}, "is not an IP-adapter for images"),
        ({"weights": "models/link.safetensors"}, "is a link to"),
    ):
        error = of_adapter(**changes)
        assert problem in f"{error.problem} {error.fix}"
    link.unlink()


def test_adapters_for_faces_and_weights_that_are_left_out_are_refused(
    adapter: dict[str, Any], tmp_path: Path
) -> None:
    whole = load_file(Path(adapter["path"], WEIGHTS))
    folder = shutil.copytree(adapter["path"], tmp_path / "changed")
    for added, left_out, said in (
        ({}, "image_proj.proj.weight", "norm.weight"),
        ({"ip_adapter.0.to_k_lora.down.weight": torch.ones(2, 2)}, "", "to_k_lora"),
        ({}, "ip_adapter.3.to_k_ip.weight", r"has no weight ip_adapter\.3\.to_k"),
        ({"ip_adapter.99.to_k_ip.weight": torch.ones(2)}, "", r"nothing uses: ip_adapter\.99\.to_k_ip"),
        ({"image_proj.extra.weight": torch.ones(2)}, "", "extra.weight"),
        ({"ip_adapter.3.to_k_ip.weight": torch.ones(2, 3)}, "", r"ip\.weight has the shape \[2, 3\]"),
        ({"image_proj.latents": torch.ones(1, 2, 3)}, "image_proj.", r"has no weight image_proj\.proj_in\."),
    ):
        kept = {name: value for name, value in whole.items() if not left_out or not name.startswith(left_out)}
        save_file(kept | added, folder / WEIGHTS)
        with pytest.raises(ModelError, match=said) as loading:
            load_model(tiny("sd"), ip_adapter=adapter | {"path": str(folder)})
    with pytest.raises(ModelError) as planning:
        plan(job(tmp_path, adapter | {"path": str(folder)}))
    assert loading.value.problem in planning.value.problem
    shutil.copy(Path(adapter["path"], WEIGHTS), folder / WEIGHTS)
    encoder = folder / ENCODER / "model.safetensors"
    tensors = load_file(encoder)
    save_file({name: value for name, value in tensors.items() if "visual_projection" not in name}, encoder)
    with pytest.raises(ModelError, match="has no weight visual_projection"):
        load_model(tiny("sd"), ip_adapter=adapter | {"path": str(folder)})


def test_an_adapter_behind_a_url_goes_with_loras(tmp_path: Path) -> None:
    place = f"memory://ip-adapters-{tmp_path.name}"
    given = save_ip_adapter(tmp_path / "adapter")
    fsspec.filesystem("memory").put(given["path"], place, recursive=True)
    lora = save_lora("sd", "style", tmp_path / "lora")
    model = load_model(
        tiny("sd"), dtype="fp32", ip_adapter=given | {"path": place}, loras={"style": str(lora)}
    )
    assert model.settings.ip_adapter is not None and model.settings.ip_adapter.path == place
    renderer = unaudited(model, inputs=Inputs([str(tmp_path)], base=str(tmp_path)))
    first, *_ = write_starts(tmp_path, num_frames=1)
    arguments = {**SMALLEST["sd"], "prompt": "a", "num_inference_steps": 2, "ip_adapter_image": first}
    asked = [Request(arguments=arguments | more, seed=5) for more in ({}, {"lora": "style:0.5"})]
    clips = [clip.frames_sha256 for clip in renderer.render(asked) if isinstance(clip, Clip)]
    image = Image.open(tmp_path / first).convert("RGB")
    pipe = plain_pipe("sd", given, torch.float32)
    plain = replace(asked[0], arguments=arguments | {"ip_adapter_image": image})
    made = [plain_digest(pipe, plain, {})]
    pipe.load_lora_weights(str(lora), adapter_name="my_style")
    made.append(plain_digest(pipe, plain, {"style": 0.5}))
    assert len(set(made)) == 2
    assert sorted(clips) == sorted(made)


def test_a_plan_probes_rows_of_an_ip_adapter_without_weights(adapter: dict[str, Any], tmp_path: Path) -> None:
    planned = command("plan", write_job(tmp_path / "job.yaml", job(tmp_path, adapter)), "--hollow", exits=0)
    assert "ip_adapter_image" in planned.output and "not called" not in planned.output
