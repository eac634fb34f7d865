"""Weights in the files that people have: rows are what diffusers renders with the same files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import gguf
import pytest
import torch
from diffusers import (
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import save_file
from torchao.quantization import Int8WeightOnlyConfig

from framefleet import Clip, Model, load_model, plan
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.model import open_models
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.single_file import SingleFile
from tests import original_layouts
from tests.commands import command
from tests.gguf_files import wan_weights, write_gguf
from tests.options import digest, rendered, requests
from tests.random_weights import fill_weights
from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, projected_clip
from tests.tinies.image import image_autoencoder, sdxl, unet
from tests.tiny import tiny

Weights = dict[str, torch.Tensor]
WEIGHTS = "diffusion_pytorch_model.safetensors"
TORCHAO = {"backend": "torchao", "type": "int8_weight_only"}


def write(weights: Weights, path: Path) -> Path:
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose transformer has a config and no weights."""
    folder = tmp_path_factory.mktemp("bare") / "wan"
    shutil.copytree(tiny("wan"), folder)
    (folder / "transformer" / WEIGHTS).unlink()
    return folder


def assert_equal_rows(model: Model, pipe: Any, name: str = "wan") -> None:
    """Six rows, rendered in batches, are those of plain calls."""
    pipe.set_progress_bar_config(disable=True)
    rows = [*requests(name), *(replace(row, seed=row.seed + 4) for row in requests(name)[:2])]
    clips = rendered(model, rows)
    assert [clip.frames_sha256 for clip in clips] == [digest(pipe, row) for row in rows]
    assert sum(clip.batch_size for clip in clips) > len(clips)


def test_a_checkpoint_of_stable_diffusion_gives_all_networks_of_its_base(tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny("sd"), dtype=torch.float32)
    file = write(original_layouts.stable_diffusion(pipe), tmp_path / "sd15.safetensors")
    assert_equal_rows(load_model(file, base=tiny("sd")), pipe, "sd")
    own = StableDiffusionPipeline.from_single_file(str(file), config=str(tiny("sd")), local_files_only=True)
    assert_equal_rows(load_model(file, base=tiny("sd")), own, "sd")


def test_a_checkpoint_of_stable_diffusion_xl_gives_both_text_encoders(tmp_path: Path) -> None:
    width = 2 * TEXT_WIDTH  # of the second encoder: diffusers tells the two apart by their widths
    pipe = StableDiffusionXLPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(width),
        vae=image_autoencoder(),
        unet=unet(
            cross_attention_dim=TEXT_WIDTH + width,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + width,
        ),
        scheduler=sdxl().scheduler,
    )
    for network in (pipe.text_encoder, pipe.text_encoder_2, pipe.vae, pipe.unet):
        fill_weights(network, seed=1)
    pipe.save_pretrained(tmp_path / "base")
    file = write(original_layouts.stable_diffusion_xl(pipe), tmp_path / "xl.safetensors")
    for weights in (tmp_path / "base").glob("*/*.safetensors"):
        weights.unlink()
    model = load_model(file, base=tmp_path / "base")
    for name, network in model.networks().items():
        expected = getattr(pipe, name).state_dict()
        assert all(torch.equal(network.state_dict()[key], value) for key, value in expected.items()), name
    assert_equal_rows(model, pipe, "sdxl")


def test_a_file_of_wan_as_published_and_as_comfyui_has_it(tmp_path: Path, bare: Path) -> None:
    pipe = WanPipeline.from_pretrained(tiny("wan"), dtype=torch.float32)
    plain = write(wan_weights(), tmp_path / "wan.safetensors")
    prefixed = write(original_layouts.wan(pipe.transformer), tmp_path / "comfy.safetensors")
    assert_equal_rows(load_model(plain, base=bare), pipe)
    assert_equal_rows(load_model(bare, parts={"transformer": prefixed}), pipe)


@pytest.mark.long  # its converter knows one width, 3072: 0.5 billion parameters
def test_a_file_of_flux_as_published(tmp_path: Path) -> None:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
    ).to(torch.bfloat16)
    folder = tmp_path / "transformer"
    transformer.save_config(folder)
    file = write(original_layouts.flux(transformer), tmp_path / "flux.safetensors")
    shutil.copytree(tiny("flux"), tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "transformer")
    shutil.copytree(folder, tmp_path / "base" / "transformer")
    components = {one.name: one for one in components_in(tmp_path / "base")}
    single = SingleFile(path=file, is_gguf=False, where="flux")
    network = single.network(components["transformer"], tmp_path / "base", torch.bfloat16, None)
    single.check_all_placed(allow_unmatched=False)
    weights = network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in transformer.state_dict().items())


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_gguf_renders_as_diffusers_does(kind: str, tmp_path: Path, bare: Path) -> None:
    quantization = getattr(gguf.GGMLQuantizationType, kind)
    file = write_gguf(wan_weights(), tmp_path / f"{kind}.gguf", quantization)
    transformer = WanTransformer3DModel.from_single_file(
        str(file),
        config=str(bare),
        subfolder="transformer",
        torch_dtype=torch.float32,
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
    )
    pipe = WanPipeline.from_pretrained(bare, transformer=transformer, dtype=torch.float32)
    model = load_model(bare, parts={"transformer": file})
    assert "transformer.gguf" in model.digests
    assert "gguf" in model.environment
    assert_equal_rows(model, pipe)


def torchao_config() -> Any:
    return diffusers.TorchAoConfig(Int8WeightOnlyConfig())


def sdnq_config() -> Any:
    return diffusers.SDNQConfig(weights_dtype="int8", minimum_allowed_numel=64)


def quanto_config() -> Any:
    return diffusers.QuantoConfig("int8")


@pytest.mark.parametrize("config", [torchao_config, quanto_config, sdnq_config])
def test_a_packed_folder_renders_as_diffusers_does(
    config: Callable[[], Any], tmp_path: Path, bare: Path
) -> None:
    folder = tmp_path / "packed"
    shutil.copytree(bare, folder)
    WanTransformer3DModel.from_pretrained(
        tiny("wan"), subfolder="transformer", quantization_config=config(), torch_dtype=torch.float32
    ).save_pretrained(folder / "transformer")
    assert_equal_rows(load_model(folder), WanPipeline.from_pretrained(folder, dtype=torch.float32))


@pytest.mark.parametrize(
    ("method", "option", "reason"),
    [
        ("gguf", {"fuse_qkv": True}, "fuse_qkv: the weights of transformer are packed, by gguf"),
        ("gguf", {"quantization": TORCHAO}, "the weights of transformer are packed already, by gguf"),
        ("torchao", {"offload": {"type": "group", "disk": "."}}, "offload.disk: the weights of transformer"),
        ("quanto", {"offload": "group"}, "offload group: the weights of transformer are packed, by quanto"),
    ],
)
def test_a_plan_refuses_options_that_packed_weights_do_not_take(
    method: str, option: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny("wan"), tmp_path / "wan")
    model = {"path": str(folder), **option}
    if method == "gguf":
        file = write_gguf(wan_weights(), tmp_path / "q8.gguf", gguf.GGMLQuantizationType.Q8_0)
        model["parts"] = {"transformer": str(file)}
    else:
        config = folder / "transformer" / "config.json"
        packing = {"quantization_config": {"quant_method": method}}
        config.write_text(json.dumps(json.loads(config.read_text()) | packing))
    with pytest.raises(ModelError, match=reason):
        plan({"output": str(tmp_path / "out"), "sweep": {"prompt": ["a"]}, "model": model})


def test_weights_are_quantized_by_any_backend_of_diffusers() -> None:
    options = {"backend": "sdnq", "weights_dtype": "int8", "minimum_allowed_numel": 64}
    transformer = WanTransformer3DModel.from_pretrained(
        tiny("wan"), subfolder="transformer", quantization_config=sdnq_config(), torch_dtype=torch.float32
    )
    pipe = WanPipeline.from_pretrained(tiny("wan"), transformer=transformer, dtype=torch.float32)
    assert_equal_rows(load_model(tiny("wan"), quantization=options), pipe)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a file without its base": ({"path": "wan.safetensors"}, "without configs and tokenizers"),
    "a base of a folder": ({"path": "base", "base": "base"}, "is not one file"),
    "a part of nothing": ({"parts": {"transfomer": "wan.safetensors"}}, "did you mean 'transformer'"),
    "a pickle": ({"parts": {"transformer": "wan.ckpt"}}, "is a pickle"),
    "a format nobody reads": ({"parts": {"transformer": "wan.onnx"}}, "is not a .safetensors or .gguf file"),
    "a file that is not there": ({"parts": {"transformer": "none.safetensors"}}, "does not exist"),
    "another file": ({"parts": {"transformer": {"path": "wan.safetensors", "sha256": "0" * 64}}}, "SHA-256"),
    "half a file": ({"parts": {"transformer": "half.safetensors"}}, "has no weight"),
    "scales of fp8": ({"parts": {"transformer": "scaled.safetensors"}}, "packed in fp8"),
    "weights of nothing": ({"parts": {"transformer": "more.safetensors"}}, "nothing uses: blocks.0.other"),
    "a text encoder of a file": ({"parts": {"scheduler": "wan.safetensors"}}, "has no weights in this model"),
    "a web page": ({"parts": {"transformer": "page.gguf"}}, "is a web page"),
    "a short file": ({"parts": {"transformer": "short.gguf"}}, "but its header says"),
    "packed twice": (
        {
            "parts": {"transformer": "q8.gguf"},
            "quantization": TORCHAO,
        },
        "packed already",
    ),
    "joined weights that are packed": (
        {"parts": {"transformer": "q8.gguf"}, "fuse_qkv": True},
        "fuse_qkv: the weights of transformer are packed, by gguf",
    ),
    "processes of packed weights": (
        {"parts": {"transformer": "q8.gguf"}, "placement": {"type": "ulysses", "devices": 2}},
        "ulysses takes plain weights, and those of transformer are packed, by gguf",
    ),
    "a backend that is a format": ({"quantization": {"backend": "gguf"}}, "is a format of files"),
    "a backend of nobody": ({"quantization": {"backend": "sdqn"}}, "did you mean 'sdnq'"),
    "an argument of nobody": ({"quantization": {"backend": "sdnq", "weight_dtype": "int8"}}, "weights_dtype"),
    "a backend that is not installed": ({"quantization": {"backend": "modelopt"}}, "pip install"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_reason(
    case: str, tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = wan_weights()
    write(weights, Path("wan.safetensors"))
    first = next(iter(weights))
    write({name: weights[name] for name in weights if name != first}, Path("half.safetensors"))
    write(weights | {"blocks.0.other.weight": torch.zeros(2)}, Path("more.safetensors"))
    write(weights | {"blocks.0.self_attn.q.scale_weight": torch.ones(1)}, Path("scaled.safetensors"))
    packed = write_gguf(weights, Path("q8.gguf"), gguf.GGMLQuantizationType.Q8_0)
    Path("short.gguf").write_bytes(packed.read_bytes()[:-100])
    Path("page.gguf").write_text("<!doctype html><html>sign in</html>")
    given, reason = REFUSED[case]
    with pytest.raises(ModelError, match=re.escape(reason)):
        load_model(**{"path": str(tiny("wan") if given.keys() == {"quantization"} else bare), **given})


@pytest.mark.daily(2)
@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("half.safetensors", "has no weight"),
        ("scaled.safetensors", "packed in fp8"),
        ("more.gguf", "nothing uses: blocks.0.other.weight"),
        ("whole.gguf", None),
    ],
)
def test_a_plan_compares_single_files_by_their_headers(
    part: str, reason: str | None, tmp_path: Path, bare: Path
) -> None:
    weights = wan_weights()
    if part == "half.safetensors":
        del weights[next(iter(weights))]
    elif part == "scaled.safetensors":
        weights["blocks.0.self_attn.q.scale_weight"] = torch.ones(1)
    elif part == "more.gguf":
        weights["blocks.0.other.weight"] = torch.ones(64, 64)
    kind = gguf.GGMLQuantizationType.Q8_0
    file = tmp_path / part
    write_gguf(weights, file, kind) if part.endswith(".gguf") else write(weights, file)
    table = tmp_path / "t.csv"
    table.write_text("prompt\na cat\n")
    model = {"path": str(bare), "parts": {"transformer": str(file)}}
    job = {"model": model, "table": str(table), "output": str(tmp_path / "o")}
    if reason is None:
        assert plan(job).counts.pending == 1
    else:
        with pytest.raises(ModelError, match=re.escape(reason)) as caught:
            plan(job)
        assert str(file) in caught.value.problem


def test_a_text_encoder_of_a_file_is_not_quantised_and_the_driver_says_so(tmp_path: Path) -> None:
    file = write(wan_weights(), tmp_path / "encoder.safetensors")  # which nobody opens
    quantization = {"backend": "quanto", "type": "int8", "components": ["text_encoder"]}
    values = {"path": str(tiny("wan")), "parts": {"text_encoder": str(file)}, "quantization": quantization}
    message = "text_encoder: text encoders of a single file are not quantised"
    with pytest.raises(ModelError, match=message):
        open_models(load_job({"model": values, "table": "t.csv", "output": "out"}))
    with pytest.raises(ModelError, match=message):
        load_model(**values)


def test_weights_without_a_place_are_left_out_when_that_is_said(tmp_path: Path, bare: Path) -> None:
    file = write(wan_weights() | {"blocks.0.other.weight": torch.zeros(2)}, tmp_path / "more.safetensors")
    model = load_model(file, base=bare, allow_unmatched_weights=True)
    assert isinstance(rendered(model, requests()[:1])[0], Clip)


def test_kernels_that_are_fetched_as_code_are_refused(tmp_path: Path, bare: Path) -> None:
    folder = tmp_path / "nunchaku"
    shutil.copytree(tiny("wan"), folder)
    config = folder / "transformer" / "config.json"
    values = json.loads(config.read_text()) | {"quantization_config": {"quant_method": "nunchaku_lite"}}
    config.write_text(json.dumps(values))
    with pytest.raises(ModelError, match="fetched from the hub as code"):
        load_model(folder)


def test_a_lock_covers_the_parts_that_it_was_made_with(bare: Path, tmp_path: Path) -> None:
    file = write_gguf(wan_weights(), tmp_path / "wan.gguf", None)
    lock, part = tmp_path / "wan.lock.json", f"transformer={file}"
    locked = command("model", "lock", bare, "--part", part, "--output", lock)
    assert locked.exit_code == 0, locked.output
    assert "transformer.gguf" in json.loads(lock.read_text())["files"]
    assert command("model", "verify", bare, "--part", part, "--lock", lock).exit_code == 0
    assert command("model", "verify", bare, "--lock", lock).exit_code == 2  # another model
    load_model(bare, parts={"transformer": file}, lock=lock, dtype="fp32")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused = command("model", "verify", bare, "--part", part, "--lock", lock)
    assert refused.exit_code == 2 and "is not the expected file" in refused.output
    with pytest.raises(ModelError, match="is not the expected file"):
        load_model(bare, parts={"transformer": file}, lock=lock, dtype="fp32")
