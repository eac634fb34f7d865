"""Weights in the files that people have: rows are what diffusers renders with the same files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import gguf
import pytest
import torch
from diffusers import (
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from torchao.quantization import Int8WeightOnlyConfig

from framefleet import Clip, Model, ModelError, load_model, plan
from framefleet.plugins.forecast.job_plan import JobPlan
from tests import original_layouts
from tests.commands import command
from tests.gguf_files import wan_weights, write_gguf
from tests.model_files import flip_a_byte
from tests.options import digest, rendered, requests
from tests.random_weights import fill_weights
from tests.tinies.encoders import TEXT_WIDTH, projected_clip
from tests.tinies.image import sdxl, unet
from tests.tiny import tiny

Weights = dict[str, torch.Tensor]
WEIGHTS = "diffusion_pytorch_model.safetensors"
TORCHAO = {"backend": "torchao", "type": "int8_weight_only"}


def write(weights: Weights, path: Path) -> Path:
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)
    return path


def planned(folder: Path, **model: Any) -> JobPlan:
    return plan({"output": str(folder / "o"), "sweep": {"prompt": ["a"]}, "model": model})


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose transformer has a config and no weights."""
    folder = shutil.copytree(tiny("wan"), tmp_path_factory.mktemp("bare") / "wan")
    (folder / "transformer" / WEIGHTS).unlink()
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files for the transformer: two that are whole, and others."""
    folder, weights = tmp_path_factory.mktemp("files"), wan_weights()
    _, *names = weights
    write(weights, folder / "wan.safetensors")
    write({name: weights[name] for name in names}, folder / "half.safetensors")
    write(weights | {"blocks.0.other.weight": torch.zeros(2)}, folder / "more.safetensors")
    write(weights | {"blocks.0.self_attn.q.scale_weight": torch.ones(1)}, folder / "scaled.safetensors")
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = write_gguf(weights, folder / "q8.gguf", kind)
    write_gguf(weights | {"blocks.0.other.weight": torch.ones(64, 64)}, folder / "more.gguf", kind)
    text = own_weights("text_encoder")
    write(
        {name: text[name] for name in text if ".0.layer.0" not in name}, folder / "text_lacking.safetensors"
    )
    write(text | {"encoder.other.weight": torch.zeros(2)}, folder / "text_more.safetensors")
    write(text | {"shared.scale_weight": torch.ones(1)}, folder / "text_scaled.safetensors")
    write(text | {"shared.weight": text["shared.weight"][:4]}, folder / "text_wide.safetensors")
    write({"blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 2)}, folder / "lora.safetensors")
    (folder / "short.gguf").write_bytes(packed.read_bytes()[:-100])
    (folder / "page.gguf").write_text("<!doctype html><html>sign in</html>")
    return folder


def align(networks: Iterable[torch.nn.Module]) -> None:
    """Have plain weights begin where torch has tensors begin: MKL rounds otherwise where files have them."""
    for network in networks:
        for weight in network.parameters():
            if type(weight) is torch.nn.Parameter:
                weight.data = weight.data.clone()


def assert_equal_rows(model: Model, pipe: Any, name: str = "wan", num_rows: int = 1) -> None:
    """Rows are those of plain calls; several are rendered in batches."""
    for networks in (model.networks().values(), pipe.components.values()):
        align(network for network in networks if isinstance(network, torch.nn.Module))
    rows = [*requests(name), *(replace(row, seed=row.seed + 4) for row in requests(name)[:2])][:num_rows]
    clips = rendered(model, rows)
    assert [clip.frames_sha256 for clip in clips] == [digest(pipe, row) for row in rows]
    assert num_rows == 1 or sum(clip.batch_size for clip in clips) > len(clips)


def test_a_checkpoint_of_stable_diffusion_gives_all_networks_of_its_base(tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny("sd"), dtype=torch.float32)
    file = write(original_layouts.stable_diffusion(pipe), tmp_path / "sd15.safetensors")
    own = StableDiffusionPipeline.from_single_file(str(file), config=str(tiny("sd")), local_files_only=True)
    model = load_model(file, base=tiny("sd"))
    assert_equal_rows(model, pipe, "sd")
    assert_equal_rows(model, own, "sd")


def test_a_checkpoint_of_stable_diffusion_xl_gives_both_text_encoders(tmp_path: Path) -> None:
    width = 2 * TEXT_WIDTH  # of the second encoder: diffusers tells the two apart by their widths
    network = unet(
        cross_attention_dim=TEXT_WIDTH + width,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + width,
    )
    parts = sdxl().components | {"text_encoder_2": projected_clip(width), "unet": network}
    pipe = StableDiffusionXLPipeline(**parts)
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


def test_a_file_of_wan_as_published_and_as_comfyui_has_it(tmp_path: Path, bare: Path, files: Path) -> None:
    pipe = WanPipeline.from_pretrained(tiny("wan"), dtype=torch.float32)
    prefixed = write(original_layouts.wan(pipe.transformer), tmp_path / "comfy.safetensors")
    assert_equal_rows(load_model(files / "wan.safetensors", base=bare), pipe)
    assert_equal_rows(load_model(bare, parts={"transformer": prefixed}), pipe)


def own_weights(component: str, model: str = "wan") -> Weights:
    (file,) = (tiny(model) / component).glob("*.safetensors")
    return load_file(file)


def assert_same_weights(model: Model, expected: Model) -> None:
    for name, network in expected.networks().items():
        weights = model.networks()[name].state_dict()
        assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items()), name


@pytest.mark.parametrize(
    ("component", "names", "prefix"),
    [
        *(("transformer", "published", prefix) for prefix in ("_orig_mod.", "transformer.", "pipe.dit.")),
        *(("transformer", "published", prefix) for prefix in ("diffusion_model.", "module.model.")),
        *(("transformer", "own", prefix) for prefix in ("_orig_mod.", "diffusion_model.", "transformer.")),
        *(
            ("text_encoder", "own", prefix)
            for prefix in ("", "module.", "text_encoders.umt5xxl.transformer.")
        ),
        ("text_encoder", "ComfyUI", ""),
        ("vae", "own", "vae."),
    ],
)
def test_names_that_all_have_one_prefix_are_read_without_it(
    component: str, names: str, prefix: str, tmp_path: Path
) -> None:
    weights = wan_weights() if names == "published" else own_weights(component)
    if names == "ComfyUI":
        weights = {name: value for name, value in weights.items() if "embed_tokens" not in name}
        weights["spiece_model"] = torch.zeros(9, dtype=torch.uint8)
    file = write({f"{prefix}{name}": value for name, value in weights.items()}, tmp_path / "x.safetensors")
    part = {"parts": {component: str(file)}}
    assert planned(tmp_path, path=str(tiny("wan")), **part).counts.pending == 1
    assert_same_weights(load_model(tiny("wan"), **part), load_model(tiny("wan")))


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "_orig_mod."])
def test_a_network_of_stable_diffusion_is_read_with_and_without_its_usual_prefix(
    prefix: str, tmp_path: Path
) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny("sd"), dtype=torch.float32)
    start, weights = "model.diffusion_model.", original_layouts.stable_diffusion(pipe)
    named = {name.replace(start, prefix): weights[name] for name in weights if name.startswith(start)}
    model = load_model(tiny("sd"), parts={"unet": write(named, tmp_path / "unet.safetensors")})
    assert_same_weights(model, load_model(tiny("sd")))


@pytest.mark.parametrize("ending", ["GGUF", "Gguf", "SAFETENSORS"])
def test_the_case_of_an_ending_does_not_matter(ending: str, tmp_path: Path, bare: Path, files: Path) -> None:
    is_packed = ending.lower() == "gguf"
    file = shutil.copy(files / ("q8.gguf" if is_packed else "wan.safetensors"), tmp_path / f"wan.{ending}")
    model = load_model(file, base=bare)
    assert [name for name in model.digests if name.startswith("checkpoint")] == [
        f"checkpoint.{ending.lower()}"
    ]


def test_one_file_for_a_base_of_two_denoisers_is_for_the_one_that_the_job_names(
    files: Path, tmp_path: Path
) -> None:
    file, base = files / "wan.safetensors", tiny("wan_moe")
    with pytest.raises(
        ModelError, match=r"may be for transformer or transformer_2 of its base\nhint: name the right one"
    ):
        planned(tmp_path, path=str(file), base=str(base))
    other = write(own_weights("transformer", "wan_moe"), tmp_path / "high.safetensors")
    named = load_model(base, parts={"transformer": other, "transformer_2": file})
    assert_same_weights(load_model(file, base=base, parts={"transformer": other}), named)


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
    assert_equal_rows(model, pipe, num_rows=1 if kind == "F16" else 4)


def sdnq_config() -> Any:
    return diffusers.SDNQConfig(weights_dtype="int8", minimum_allowed_numel=64)


@pytest.mark.parametrize(
    "config",
    [
        lambda: diffusers.TorchAoConfig(Int8WeightOnlyConfig()),
        lambda: diffusers.QuantoConfig("int8"),
        sdnq_config,
    ],
    ids=["torchao", "quanto", "sdnq"],
)
def test_a_packed_folder_renders_as_diffusers_does(
    config: Callable[[], Any], tmp_path: Path, bare: Path
) -> None:
    folder = shutil.copytree(bare, tmp_path / "packed")
    WanTransformer3DModel.from_pretrained(
        tiny("wan"), subfolder="transformer", quantization_config=config(), torch_dtype=torch.float32
    ).save_pretrained(folder / "transformer")
    plain = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    assert_equal_rows(load_model(folder), plain, num_rows=4)


@pytest.mark.parametrize(
    ("method", "option", "reason"),
    [
        ("gguf", {"fuse_qkv": True}, "fuse_qkv: the weights of transformer are packed by gguf"),
        ("gguf", {"quantization": TORCHAO}, "the weights of transformer are already packed by gguf"),
        ("torchao", {"offload": {"type": "group", "disk": "."}}, "offload.disk: the weights of transformer"),
        ("quanto", {"offload": "group"}, "offload group: the weights of transformer are packed by quanto"),
        ("nunchaku_lite", {}, "downloaded from the hub as code"),
    ],
)
def test_a_plan_refuses_options_that_packed_weights_do_not_take(
    method: str, option: dict[str, Any], reason: str, tmp_path: Path, files: Path
) -> None:
    folder = shutil.copytree(tiny("wan"), tmp_path / "wan")
    model = {"path": str(folder), **option}
    if method == "gguf":
        model["parts"] = {"transformer": str(files / "q8.gguf")}
    else:
        config = folder / "transformer" / "config.json"
        packing = {"quantization_config": {"quant_method": method}}
        config.write_text(json.dumps(json.loads(config.read_text()) | packing))
    with pytest.raises(ModelError, match=reason):
        planned(tmp_path, **model)


def test_weights_are_quantized_by_any_backend_of_diffusers() -> None:
    options = {"backend": "sdnq", "weights_dtype": "int8", "minimum_allowed_numel": 64}
    transformer = WanTransformer3DModel.from_pretrained(
        tiny("wan"), subfolder="transformer", quantization_config=sdnq_config(), torch_dtype=torch.float32
    )
    pipe = WanPipeline.from_pretrained(tiny("wan"), transformer=transformer, dtype=torch.float32)
    assert_equal_rows(load_model(tiny("wan"), quantization=options), pipe)


OTHER_SHA256 = {"path": "wan.safetensors", "sha256": "0" * 64}
ULYSSES = {"parts": {"transformer": "q8.gguf"}, "placement": {"type": "ulysses", "devices": 2}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a file without its base": ({"path": "wan.safetensors"}, "without configs and tokenizers"),
    "a LoRA": ({"path": "lora.safetensors"}, "is a LoRA, not a model"),
    "a base of a folder": ({"path": "base", "base": "base"}, "is not a single file"),
    "a part of nothing": ({"parts": {"transfomer": "wan.safetensors"}}, "did you mean 'transformer'"),
    "a pickle": ({"parts": {"transformer": "wan.CKPT"}}, "is a pickle"),
    "a format nobody reads": ({"parts": {"transformer": "wan.onnx"}}, "is not a .safetensors or .gguf file"),
    "a file that is not there": ({"parts": {"transformer": "none.safetensors"}}, "does not exist"),
    "another file": ({"parts": {"transformer": OTHER_SHA256}}, "SHA-256"),
    "half a file": ({"parts": {"transformer": "half.safetensors"}}, "has no weight"),
    "scales of fp8": ({"parts": {"transformer": "scaled.safetensors"}}, "packed in fp8"),
    "weights of nothing": ({"parts": {"transformer": "more.safetensors"}}, "nothing uses: blocks.0.other"),
    "a text encoder of a file": ({"parts": {"scheduler": "wan.safetensors"}}, "has no weights in this model"),
    "a web page": ({"parts": {"transformer": "page.gguf"}}, "is a web page"),
    "a short file": ({"parts": {"transformer": "short.gguf"}}, "but its header says"),
    "packed twice": ({"parts": {"transformer": "q8.gguf"}, "quantization": TORCHAO}, "already packed"),
    "processes of packed weights": (ULYSSES, "plain weights, but those of transformer are packed, by gguf"),
    "a backend that is a format": ({"quantization": {"backend": "gguf"}}, "is a file format"),
    "a backend of nobody": ({"quantization": {"backend": "sdqn"}}, "did you mean 'sdnq'"),
    "an argument of nobody": ({"quantization": {"backend": "sdnq", "weight_dtype": "int8"}}, "weights_dtype"),
    "a backend that is not installed": ({"quantization": {"backend": "modelopt"}}, "pip install"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_reason(
    case: str, files: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    given, reason = REFUSED[case]
    with pytest.raises(ModelError, match=re.escape(reason)):
        load_model(**{"path": str(tiny("wan") if given.keys() == {"quantization"} else bare), **given})


@pytest.mark.parametrize(
    ("component", "part", "reason"),
    [
        ("transformer", "half.safetensors", "has no weight"),
        ("transformer", "scaled.safetensors", "packed in fp8"),
        ("transformer", "more.gguf", "nothing uses: blocks.0.other.weight"),
        ("transformer", "q8.gguf", None),
        ("transformer", "lora.safetensors", "is a LoRA, not a model"),
        ("text_encoder", "wan.safetensors", "has no weight"),
        ("text_encoder", "q8.gguf", "GGUF only works for networks of diffusers"),
        ("text_encoder", "text_lacking.safetensors", "has no weight encoder.block.0"),
        ("text_encoder", "text_more.safetensors", "nothing uses: encoder.other.weight"),
        ("text_encoder", "text_scaled.safetensors", "packed in fp8"),
        ("text_encoder", "text_wide.safetensors", "shared.weight has the shape"),
    ],
)
def test_a_plan_compares_single_files_by_their_headers(
    component: str, part: str, reason: str | None, tmp_path: Path, bare: Path, files: Path
) -> None:
    model = {
        "path": str(bare),
        "parts": {"transformer": str(files / "wan.safetensors"), component: str(files / part)},
    }
    if reason is None:
        assert planned(tmp_path, **model).counts.pending == 1
    else:
        with pytest.raises(ModelError, match=re.escape(reason)) as caught:
            planned(tmp_path, **model)
        assert str(files / part) in caught.value.problem
        assert "fetch the model again" not in caught.value.fix


@pytest.mark.parametrize("base", ["flux", "sdxl", "wan", "cogvideox"])
def test_a_plan_refuses_a_file_of_another_family_than_its_base_by_its_name(base: str, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny("sd"), dtype=torch.float32)
    file = write(original_layouts.stable_diffusion(pipe), tmp_path / "sd15.safetensors")
    with pytest.raises(ModelError) as caught:
        planned(tmp_path, path=str(file), base=str(tiny(base)))
    assert str(file) in caught.value.problem and "fetch the model again" not in caught.value.fix


def test_a_text_encoder_of_a_file_is_not_quantised_and_the_driver_says_so(files: Path) -> None:
    encoder = str(files / "wan.safetensors")  # which nobody opens
    quantization = {"backend": "quanto", "type": "int8", "components": ["text_encoder"]}
    values = {"path": str(tiny("wan")), "parts": {"text_encoder": encoder}, "quantization": quantization}
    message = "text_encoder: text encoders from a single file cannot be quantised"
    with pytest.raises(ModelError, match=message):
        planned(files, **values)
    with pytest.raises(ModelError, match=message):
        load_model(**values)


def test_weights_without_a_place_are_left_out_when_that_is_said(files: Path, bare: Path) -> None:
    model = load_model(files / "more.safetensors", base=bare, allow_unmatched_weights=True)
    assert isinstance(rendered(model, requests(num_inference_steps=1)[:1])[0], Clip)


def test_a_lock_covers_the_parts_that_it_was_made_with(bare: Path, tmp_path: Path) -> None:
    file = write_gguf(wan_weights(), tmp_path / "wan.gguf", None)
    lock, part = tmp_path / "wan.lock.json", f"transformer={file}"
    command("model", "lock", bare, "--part", part, "--output", lock, exits=0)
    assert "transformer.gguf" in json.loads(lock.read_text())["files"]
    assert command("model", "verify", bare, "--part", part, "--lock", lock).exit_code == 0
    assert command("model", "verify", bare, "--lock", lock).exit_code == 2  # another model
    load_model(bare, parts={"transformer": file}, lock=lock, dtype="fp32")
    flip_a_byte(file)
    refused = command("model", "verify", bare, "--part", part, "--lock", lock)
    assert refused.exit_code == 2 and "is not the expected file" in refused.output
    with pytest.raises(ModelError, match="is not the expected file"):
        load_model(bare, parts={"transformer": file}, lock=lock, dtype="fp32")
