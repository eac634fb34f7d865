"""Options of `model:`: rows are what plain diffusers renders with the same calls made by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import attention_backend
from diffusers.hooks import apply_group_offloading
from torch._inductor import config
from torchao.quantization import Int8WeightOnlyConfig

from framefleet import Batching, Clip, Failure, ModelError, Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.options.offload import offload
from framefleet.pipeline.model.options.schema import ModelOffload
from framefleet.pipeline.model.options.step_cache import hooks_of
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from tests.compiled import without_kernels
from tests.crafter import TEXT, crafter
from tests.long import long_but
from tests.loras import WEIGHTS, lora_rows, plain_digest, plain_pipe, save_lora
from tests.options import GROWING, Case, by_hand, digest, plain, rendered, requests
from tests.tiny import tiny
from tests.unaudited import unaudited

WIDE = {"width": 272}  # Wan's autoencoder decodes 256 pixels in one tile
LORAS = ["style", None, "style:0.5", "style"]
MAG = [1.0, 0.99, 1.01]


def math_attention(pipe: Any) -> None:
    with attention_backend("native"):
        pipe.transformer.set_attention_backend("_native_math")


def offload_to_disk(pipe: Any) -> None:
    place = tempfile.mkdtemp()
    apply_group_offloading(
        pipe.transformer, onload_device="cpu", num_blocks_per_group=2, offload_to_disk_path=place
    )
    for module in (pipe.text_encoder, pipe.vae):
        apply_group_offloading(module, onload_device="cpu", offload_type="leaf_level")


def quantized(**configs: Any) -> dict[str, Any]:
    return {"quantization_config": diffusers.PipelineQuantizationConfig(quant_mapping=configs)}


CASES = {
    "attention": Case(options={"attention": "_native_math"}, once=math_attention),
    "first_block": Case(
        options={"cache": {"type": "first_block", "threshold": 0.8}},
        cache=lambda pipe, steps: diffusers.FirstBlockCacheConfig(threshold=0.8),
    ),
    "mag": Case(
        options={"cache": {"type": "mag", "mag_ratios": MAG}},
        cache=lambda pipe, steps: diffusers.MagCacheConfig(mag_ratios=MAG, num_inference_steps=steps),
    ),
    "pyramid": Case(
        options={"cache": "pyramid"},
        cache=lambda pipe, _: diffusers.PyramidAttentionBroadcastConfig(
            current_timestep_callback=lambda: pipe.current_timestep
        ),
    ),
    "faster": Case(
        model="cogvideox",
        options={"cache": "faster"},
        cache=lambda pipe, _: diffusers.FasterCacheConfig(
            current_timestep_callback=lambda: pipe.current_timestep
        ),
    ),
    "sea": Case(
        options={"cache": {"type": "sea", "threshold": 9.0}},
        cache=lambda pipe, steps: diffusers.SeaCacheConfig(threshold=9.0),
    ),
    "text_kv": Case(
        model="nucleus",
        options={"cache": "text_kv"},
        cache=lambda pipe, steps: diffusers.TextKVCacheConfig(),
        changes_frames=False,
    ),
    "two denoisers": Case(
        model="wan_moe",
        options={"cache": {"type": "mag", "mag_ratios": [1.0]}},
        cache=lambda pipe, steps: diffusers.MagCacheConfig(mag_ratios=[1.0], num_inference_steps=steps),
    ),
    "fused": Case(
        model="flux",
        more={"height": 32, "width": 32},
        options={"fuse_qkv": True},
        once=lambda pipe: pipe.transformer.fuse_qkv_projections(),
        changes_frames=False,  # on this CPU, at this width
    ),
    "casting": Case(
        options={"layerwise_casting": "fp8_e4m3"},
        once=lambda pipe: pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn),
    ),
    "torchao": Case(
        options={"quantization": {"backend": "torchao", "type": "int8_weight_only"}},
        loading=quantized(transformer=diffusers.TorchAoConfig(Int8WeightOnlyConfig())),
    ),
    "quanto": Case(
        options={"quantization": {"backend": "quanto", "type": "int8", "components": ["transformer"]}},
        loading=quantized(transformer=diffusers.QuantoConfig("int8")),
    ),
    "disk": Case(
        options={"offload": {"type": "group", "blocks": 2, "disk": "here"}},
        once=offload_to_disk,
        changes_frames=False,
    ),
    "tiling": Case(options={"vae_tiling": True}, once=lambda pipe: pipe.vae.enable_tiling(), more=WIDE),
}


LONG = {"first_block", "faster", "two denoisers"}  # much like others


@pytest.mark.parametrize("name", long_but(sorted(CASES), *(CASES.keys() - LONG)))
def test_rows_are_those_of_plain_calls_with_the_option_set_by_hand(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where weights on disk go
    case = CASES[name]
    rows = requests(case.model, **case.more)
    model = load_model(tiny(case.model), dtype="fp32", **case.options)
    clips = rendered(model, rows)
    assert [clip.frames_sha256 for clip in clips] == list(by_hand(case, [clip.request for clip in clips]))
    (option,) = case.options
    assert option in model.settings.numerics("exact")
    if case.changes_frames:
        pipe = plain(case.model)
        assert any(clip.frames_sha256 != digest(pipe, clip.request) for clip in clips)
    batch = sum(clip.batch_size for clip in clips) / len(clips)
    assert batch == 1 if option == "cache" else batch > 1


def test_joined_products_are_those_of_every_block_and_not_next_to_loras(tmp_path: Path) -> None:
    transformer = load_model(tiny("flux"), dtype="fp32", fuse_qkv=True).pipe.transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    assert all(block.attn.fused_projections for block in blocks)
    with pytest.raises(ModelError, match="does not work together with LoRAs"):
        load_model(tiny("wan"), fuse_qkv=True, loras={"style": save_lora("wan", "style", tmp_path)})


def size_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())


def test_casting_halves_the_weights_and_offload_to_disk_puts_them_there(tmp_path: Path) -> None:
    before = size_bytes(load_model(tiny("wan"), dtype="fp32").pipe.transformer)
    cast = load_model(tiny("wan"), dtype="fp32", layerwise_casting="fp8_e5m2").pipe.transformer
    assert size_bytes(cast) < 0.6 * before
    load_model(tiny("wan_moe"), dtype="fp32", offload={"type": "group", "disk": str(tmp_path)})
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 2  # one for each transformer: files of both have the same names
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders]
    assert all(size > before for size in sizes)


def test_slicing_decodes_one_of_a_batch_at_a_time() -> None:
    sizes: list[int] = []
    for slicing in (False, True):
        vae = load_model(tiny("sd"), dtype="fp32", vae_slicing=slicing).pipe.vae
        vae.decoder.register_forward_pre_hook(lambda _, latents: sizes.append(len(latents[0])))
        with torch.no_grad():
            vae.decode(torch.zeros(2, 4, 2, 2))
    assert sizes == [2, 1, 1]


def test_a_cache_leaves_nothing_behind_though_rows_fail() -> None:
    def broken(pipe: Any, request: Request) -> Any:
        frames = generate(pipe, request)
        if request.seed == second.seed + 1:
            raise KeyError("after the cache was filled")
        return frames

    recipes = {"broken": Recipe(name="broken", function=broken, digest="")}
    model = load_model(tiny("wan"), dtype="fp32", cache={"type": "mag", "mag_ratios": [1.0]})
    first, second = requests()[:2]
    rows = [replace(row, recipe="broken") for row in (first, replace(second, seed=second.seed + 1), second)]
    outcomes = list(unaudited(model, recipes=recipes).render(rows))
    assert [type(outcome) for outcome in outcomes] == [Clip, Failure, Clip]
    stopped = unaudited(model).render([first, second])
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert not any(hooks_of(module) for module in model.pipe.transformer.modules())
    assert digest(model.pipe, first) == digest(plain("wan"), first)


def test_components_that_take_turns_on_the_device_keep_their_hooks_and_frames() -> None:
    model = load_model(tiny("wan"), dtype="fp32")
    offload(model.pipe, ModelOffload(), device="cpu", denoisers=["transformer"])
    hooks = [module._hf_hook for module in (model.pipe.transformer, model.pipe.vae)]
    clips = rendered(model, requests())
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("wan"), clip.request) for clip in clips]
    assert [module._hf_hook for module in (model.pipe.transformer, model.pipe.vae)] == hooks
    assert sum(clip.batch_size for clip in clips) > len(clips)


@pytest.mark.parametrize(
    ("loras", "has_kernels"),
    [(LORAS, False), *(pytest.param(loras, True, marks=pytest.mark.long) for loras in ([None], LORAS))],
)
def test_compiled_rows_of_any_lora_and_shape_are_those_compiled_by_hand(
    tmp_path: Path, loras: list[str | None], has_kernels: bool
) -> None:
    files = {"style": save_lora("wan", "style", tmp_path)}
    rows = lora_rows("wan", loras)
    rows[1:2] = [replace(row, arguments=row.arguments | {"height": 32}) for row in rows[1:2]]
    # Compilers in processes of their own would import torch first.
    with config.patch(compile_threads=1) if has_kernels else without_kernels():
        model = load_model(tiny("wan"), dtype="fp32", loras=files, compile=True)
        clips = rendered(model, rows, Batching(max_rows=1))
        assert all(block._compiled_call_impl for block in model.pipe.transformer.blocks)
        bare, adapted = (plain_pipe("wan", torch.float32, loras) for loras in ({}, files))
        for pipe in (bare, adapted):
            pipe.transformer.eval().compile_repeated_blocks(fullgraph=True, dynamic=False)
        for clip, row in zip(clips, rows, strict=True):
            weights = WEIGHTS[row.arguments.get("lora")]
            assert clip.frames_sha256 == plain_digest(adapted if weights else bare, row, weights)
    assert model.settings.numerics("exact")["compile"] is True


def test_rows_of_weights_laid_out_by_pixels_share_forwards_and_are_those_of_plain_calls() -> None:
    model, pipe = load_model(tiny("sd"), dtype="fp32", channels_last=True), plain("sd")
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    assert model.pipe.unet.conv_in.weight.stride() == pipe.unet.conv_in.weight.stride()
    assert model.pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    clips = rendered(model, requests("sd"))
    assert [clip.frames_sha256 for clip in clips] == [digest(pipe, clip.request) for clip in clips]
    assert sum(clip.batch_size for clip in clips) > len(clips)


def test_models_whose_classes_are_not_of_diffusers_take_options_too() -> None:
    quantization = {"backend": "torchao", "type": "int8_weight_only"}
    pipe = load_model(crafter(TEXT), dtype="fp32", vae_tiling=True, quantization=quantization).pipe
    assert pipe.vae.use_tiling
    with pytest.raises(ModelError, match="VideoCrafterUNet3DModel does not take the caches"):
        load_model(crafter(TEXT), cache="first_block")


def test_auto_attention_falls_back_and_a_record_says_what_it_became() -> None:
    model = load_model(tiny("ltx"), dtype="fp32", attention="auto")  # LTX hands over a mask
    assert model.attention is not None
    assert model.attention.name == "_native_flash"
    load_model(tiny("ltx"), attention="_native_math")  # for that model alone, and not for the process
    clips = rendered(model, requests("ltx"))
    assert {clip.environment["attention"] for clip in clips} == {"native"}
    assert "attention" not in load_model(tiny("sd"), attention="auto").environment  # has no choice
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("ltx"), clip.request) for clip in clips]


def test_rows_under_way_begin_again_when_attention_changes() -> None:
    model = load_model(tiny("wan"), dtype="fp32", attention="auto")
    assert model.attention is not None
    calls: list[str] = []
    starts: list[int] = []

    def noted(pipe: Any, request: Request) -> Any:
        starts.append(request.seed)
        return generate(pipe, request)

    def refuse(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) > 12 and model.attention and model.attention.name == "_native_flash":
            raise RuntimeError("no such kernel for this")
        return original(*args, **kwargs)

    with intercept({"transformer": model.pipe.transformer}, refuse):
        recipes = {"noted": Recipe(name="noted", function=noted, digest="")}
        rows = [replace(row, recipe="noted") for row in requests()]
        clips = list(unaudited(model, GROWING, recipes=recipes).render(rows))
    assert {clip.environment["attention"] for clip in clips} == {"native"}
    assert sorted(starts) == sorted(2 * [row.seed for row in rows])
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("wan"), clip.request) for clip in clips]


TORCHAO = {"backend": "torchao", "type": "int8_weight_only"}
QUANTO = {"backend": "quanto", "type": "int8", "components": ["unet"]}


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("sd", {"cache": "first_block"}, "UNet2DConditionModel does not take the caches"),
        ("wan", {"cache": "taylor_seer"}, "would do nothing"),
        ("wan", {"cache": {"type": "taylor_seer", "cache_identifiers": ["("]}}, "does not fit"),
        ("cogvideox", {"cache": "sea"}, "does not know CogVideoXTransformer3DModel's latents"),
        ("wan_i2v", {"cache": "sea"}, "does not know WanTransformer3DModel's latents"),
        ("wan", {"cache": "text_kv"}, "would do nothing"),
        ("wan", {"cache": "faster"}, "needs both prompts in one forward"),
        ("sd", {"attention": "native"}, "UNet2DConditionModel has no choice of backends"),
        ("wan", {"attention": "flsh"}, "not one of diffusers' backends"),
        ("wan", {"attention": "_native_cudnn"}, "does not work on cpu"),
        ("cogvideox", {"compile": True}, "no regions of CogVideoXTransformer3DModel"),
        ("wan", {"compile": True, "cache": "first_block"}, "compile does not work together with cache"),
        ("wan", {"offload": "model"}, "needs a GPU"),
        ("wan", {"offload": {"type": "group", "stream": True}}, "needs a GPU"),
        ("wan", {"offload": {"type": "group", "level": "leaf", "blocks": 2}}, "blocks move one by one"),
        ("wan", {"quantization": {"backend": "torchao", "type": "float8_dynamic"}}, "does not run on cpu"),
        ("wan", {"quantization": QUANTO}, "no weights in this model"),
        ("wan", {"quantization": TORCHAO | {"components": ["vae"]}}, "found nothing in vae"),
        ("wan", {"channels_last": True}, "convolves over time"),
        ("wan", {"matmul": "triton"}, "needs a GPU"),
        ("wan", {"matmul": "triton", "compile": True}, "matmul triton does not work together with compile"),
        ("wan", {"speed": "fastest"}, "does not run on cpu"),
        ("cogvideox", {"speed": "compiled"}, "no regions of (?s:.*)`compile: false` together with `speed`"),
        ("wan", {"vae_tilling": True}, "a model has no option 'vae_tilling'"),
        ("wan", {"dtype": "fp8"}, "fp8"),
        ("wan", {"device": "nowhere"}, "nowhere"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_the_fix(
    model: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_model(tiny(model), **{"device": "cpu", **options})
    assert caught.value.fix
