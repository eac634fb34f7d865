"""`framefleet model convert` on folders of Open-Sora v2 in small, as its authors lay them out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, T5ForConditionalGeneration

from framefleet import Clip, ModelError, Renderer, Request, convert_model, load_model
from framefleet.pipeline.model.sources import verified_folder
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from tests.commands import command
from tests.opensora import (
    Shapes,
    Size,
    dc_shapes,
    hunyuan_shapes,
    transformer_of,
    transformer_shapes,
    weights_of,
    write_texts,
)
from tests.tinies.encoders import TEXT_WIDTH, clip

CLIP = "openai/clip-vit-large-patch14"
SMALL = Size(depth=1, single_depth=1, text=TEXT_WIDTH, pooled=TEXT_WIDTH)
DC = Size(depth=1, single_depth=1, text=TEXT_WIDTH, pooled=TEXT_WIDTH, token=16, condition=17)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like hpcai-tech/Open-Sora-v2: CLIP with its eye, T5 with its decoder, files of Flux."""
    folder = tmp_path_factory.mktemp("originals") / "Open-Sora-v2"
    folder.mkdir()
    save_file(weights_of(transformer_shapes(SMALL)), folder / "Open_Sora_v2.safetensors")
    vae = weights_of(hunyuan_shapes((32, 32, 32, 32), latent=4, layers=1))
    save_file(vae, folder / "hunyuan_vae.safetensors")
    flux = weights_of(transformer_shapes(Size(depth=1, single_depth=1, condition=0, fused=True)))
    save_file(flux, folder / "flux1-dev.safetensors")
    image_vae = {"encoder.conv_in.weight": torch.ones(1), "decoder.mid.attn_1.q.weight": torch.ones(1)}
    save_file(image_vae, folder / "flux1-dev-ae.safetensors")
    write_texts(folder)
    return folder


def without(folder: Path, original: Path, *left_out: str, **added: dict[str, Tensor]) -> Path:
    """Link the original folder's files elsewhere, but for some, and add others."""
    folder.mkdir(exist_ok=True)
    for path in original.rglob("*"):
        name = str(path.relative_to(original))
        if path.is_file() and not name.startswith(left_out or "\0"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path)
    for name, tensors in added.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


def test_a_folder_of_originals_becomes_a_pipeline_that_renders(original: Path, tmp_path: Path) -> None:
    done = convert_model(original, tmp_path / "out")
    assert done.variant == "open-sora-v2"
    pipe = OpenSoraPipeline.from_pretrained(tmp_path / "out")
    theirs = T5ForConditionalGeneration.from_pretrained(original / "google/t5-v1_1-xxl").encoder
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(pipe.text_encoder_2(ids)[0], theirs(ids)[0])
    towers = CLIPModel.from_pretrained(original / "openai/clip-vit-large-patch14")
    own = pipe.text_encoder.state_dict()
    assert own.keys() == towers.text_model.state_dict().keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in towers.text_model.state_dict().items())
    expected = transformer_of(weights_of(transformer_shapes(SMALL))).state_dict()
    found = pipe.transformer.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    arguments = {"prompt": "a ball", "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
    (clip,) = Renderer(load_model(tmp_path / "out")).render([Request(arguments=arguments)])
    assert isinstance(clip, Clip) and clip.frames.shape == (5, 32, 32, 3)


def test_a_tokenizer_of_own_code_is_refused_unasked(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"tokenizer_config.json": {"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["x.X", None]}}}
    files["config.json"] = clip().config.to_dict()  # of the text alone, for which no tokenizer is listed
    folder = without(tmp_path / "in", original, *(f"{CLIP}/{name}" for name in files))
    for name, content in files.items():
        (folder / CLIP / name).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="tokenizer_class is 'X'"):
        convert_model(folder, tmp_path / "out")
    assert not capsys.readouterr().out, "nobody was asked"


def test_the_deep_compression_variant_is_told_by_its_latents(original: Path, tmp_path: Path) -> None:
    dc = weights_of(dc_shapes([8, 8, 8, 32, 32, 32], [1] * 6, [1] * 6, latent=16))
    transformer = weights_of(transformer_shapes(DC))
    folder = without(
        tmp_path / "in", original, "Open_Sora", "hunyuan", Video_DC_AE=transformer, F32T4C128_AE=dc
    )
    assert convert_model(folder, tmp_path / "out").variant == "open-sora-v2-dc-ae"
    pipe = OpenSoraPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.vae).__name__ == "AutoencoderDCVideo"
    assert (pipe.transformer.config.patch_size, pipe.transformer.config.in_channels) == (1, 33)
    both = without(tmp_path / "both", original, Video_DC_AE=transformer, F32T4C128_AE=dc)
    with pytest.raises(ModelError, match=r"has several models: open-sora-v2: .*; open-sora-v2-dc-ae: "):
        convert_model(both, tmp_path / "again")
    assert convert_model(both, tmp_path / "again", variant="open-sora-v2").variant == "open-sora-v2"


def test_fluxs_own_layout_is_the_same_network(tmp_path: Path) -> None:
    """One `qkv`, rotated in pairs of neighbours: what a split checkpoint becomes, joined again."""
    split = weights_of(transformer_shapes(SMALL))
    expected = transformer_of(split).state_dict()
    fused = {
        name: split[name] if name in split else joined(name, split)
        for name in transformer_shapes(Size(**{**vars_of(SMALL), "fused": True}))
    }
    found = transformer_of(
        {**fused, **{name: turned(tensor) for name, tensor in split.items() if name.endswith("_norm.scale")}}
    ).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def vars_of(size: Size) -> dict[str, Any]:
    return {name: getattr(size, name) for name in Size.__dataclass_fields__}


def turned(tensor: Tensor, head: int = 16) -> Tensor:
    halves = tensor.reshape(-1, 2, head // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def joined(name: str, split: dict[str, Tensor]) -> Tensor:
    place, _, suffix = name.rpartition(".")
    block = place.removesuffix("qkv").removesuffix("linear1")
    queries, keys = (turned(split[f"{block}{part}.{suffix}"]) for part in ("q_proj", "k_proj"))
    last = "v_mlp" if place.endswith("linear1") else "v_proj"
    return torch.cat([queries, keys, split[f"{block}{last}.{suffix}"]])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("google",), "has no T5 text encoder"),
        (("openai",), "has no CLIP text encoder"),
        (("hunyuan",), "no transformer of Open-Sora v2 together with the autoencoder"),
        (("google/t5-v1_1-xxl/tokenizer",), "has no tokenizer"),
        (("google/t5-v1_1-xxl/model-00001",), "has no tensors google/t5-v1_1-xxl:"),
    ],
)
def test_what_is_missing_is_named(
    change: tuple[str, ...], problem: str, original: Path, tmp_path: Path
) -> None:
    folder = without(tmp_path / "in", original, *change)
    with pytest.raises(ModelError, match=re.escape(problem)):
        convert_model(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("written", ["{}", "[]", '{"version": "1.0", "added_tokens": []}'])
def test_a_damaged_tokenizer_is_refused(written: str, original: Path, tmp_path: Path) -> None:
    place = "openai/clip-vit-large-patch14/tokenizer"
    folder = without(tmp_path / "in", original, f"{place}.json")
    (folder / f"{place}.json").write_text(written)
    with pytest.raises(ModelError, match="has a damaged tokenizer"):
        convert_model(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"num_layers": 10**8}, "more than 2,000 modules"), ({"d_model": "wide"}, "cannot be loaded")],
)
def test_a_text_encoder_that_cannot_be_built_is_refused(
    changes: dict[str, Any], problem: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_folder, "MAX_MODULES", 2000)  # soon reached
    config = "google/t5-v1_1-xxl/config.json"
    folder = without(tmp_path / "in", original, config)
    (folder / config).write_text(json.dumps(json.loads((original / config).read_text()) | changes))
    with pytest.raises(ModelError, match=f"t5-v1_1-xxl.* {problem}"):
        convert_model(folder, tmp_path / "out")


SHAPES = transformer_shapes(SMALL)
HEAD_SCALE = "double_blocks.0.img_attn.norm.query_norm.scale"


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (
            {name: shape for name, shape in SHAPES.items() if name != "cond_in.bias"},
            "has no tensors changed.safetensors:cond_in.bias",
        ),
        (
            {name: shape for name, shape in SHAPES.items() if "query_norm" not in name},
            "transformer: changed.safetensors:double_blocks.0.img_attn.norm.query_norm.scale is missing",
        ),
        (
            SHAPES | {"double_blocks.0.adapter.weight": (1,)},
            "unknown tensors: changed.safetensors:double_blocks.0.adapter.weight",
        ),
        (
            SHAPES | {"final_layer.linear.bias": (5,)},
            "final_layer.linear.bias has shape (5,), but proj_out.bias, which is made of it, is (16,)",
        ),
        *(
            (SHAPES | {HEAD_SCALE: (head,)}, f"transformer: changed.safetensors:{HEAD_SCALE} has {problem}")
            for head, problem in (
                *((0, "shape (0,), and so no values"), (4, "4 values, which three axes cannot share")),
                (15, "15 values, which three axes cannot share"),
            )
        ),
        (
            SHAPES | {"double_blocks.99999999.x": (1,)},
            "transformer: changed.safetensors:double_blocks.99999999 is there, and no network has 10,000",
        ),
        (SHAPES | {"double_blocks.9999.x": (1,)}, "networks with more than 2,000 modules"),
    ],
    ids=[
        *("missing", "without norms", "extra", "misshapen", "a head of nothing", "small", "odd"),
        *("a number without end", "too many modules"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    shapes: Shapes, problem: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_folder, "MAX_MODULES", 2000)  # soon reached
    folder = without(tmp_path / "in", original, "Open_Sora", changed=weights_of(shapes))
    with pytest.raises(ModelError, match=re.escape(problem)):
        convert_model(folder, tmp_path / "out")


def test_groups_of_norms_that_no_tensor_tells_are_asked_for(original: Path, tmp_path: Path) -> None:
    vae = weights_of(hunyuan_shapes((16, 16, 32, 32), latent=4, layers=1))
    folder = without(tmp_path / "in", original, "hunyuan", vae=vae)
    refused = command("model", "convert", folder, tmp_path / "out")
    assert refused.exit_code == 2 and "no tensor shows vae.norm_num_groups" in refused.stderr
    command("model", "convert", folder, tmp_path / "out", "--set", "vae.norm_num_groups=8")
    assert OpenSoraPipeline.from_pretrained(tmp_path / "out").vae.config.norm_num_groups == 8


@pytest.mark.parametrize("name", ["post_quant_conv.weight", "encoder.conv_in.conv.weight"])
def test_what_an_autoencoder_lacks_is_named(name: str, original: Path, tmp_path: Path) -> None:
    vae = weights_of(hunyuan_shapes((32, 32, 32, 32), latent=4, layers=1))
    del vae[name]
    folder = without(tmp_path / "in", original, "hunyuan", vae=vae)
    with pytest.raises(ModelError, match=re.escape(f"vae.safetensors:{name}")):
        convert_model(folder, tmp_path / "out")


def test_a_transformer_alone_is_refused_with_what_belongs_to_it(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="together with the autoencoder") as refused:
        convert_model(original / "Open_Sora_v2.safetensors", tmp_path / "out")
    assert "T5 and CLIP" in refused.value.fix
    with pytest.raises(ModelError, match="of an unknown model"):
        convert_model(original / "flux1-dev.safetensors", tmp_path / "out")
