"""Options of `model:`: rows are what plain diffusers renders with the same calls made by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import attention_backend
from diffusers.hooks import apply_group_offloading
from torchao.quantization import Int8WeightOnlyConfig

from framefleet import Clip, Failure, Model, Renderer, Request, load_model
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.fused.forwards import Batching
from framefleet.pipeline.fused.intercept import intercept
from framefleet.pipeline.options.offload import offload
from framefleet.pipeline.options.schema import ModelOffload
from framefleet.pipeline.options.step_cache import hooks_of
from framefleet.pipeline.outputs.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.recipe import Recipe, generate
from tests.crafter import TEXT, crafter
from tests.tiny import SMALLEST, tiny

GROWING = Batching(max_rows=3, min_gain=0)
WIDE = {"width": 272}  # Wan's autoencoder decodes 256 pixels in one tile
LAYERS = r"blocks\..*\.attn[12]"


def nothing(pipe: Any) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Case:
    """An option, and what a script does in its place: when it loads, once after, and before each row."""

    options: dict[str, Any]
    model: str = "wan"
    loading: dict[str, Any] = field(default_factory=dict)
    once: Callable[[Any], Any] = nothing
    cache: Callable[[Any, int], Any] | None = None
    changes_frames: bool = True
    more: dict[str, Any] = field(default_factory=dict)


def math_attention(pipe: Any) -> None:
    with attention_backend("native"):
        pipe.transformer.set_attention_backend("_native_math")


def group_offload(pipe: Any, *, disk: bool = False) -> None:
    more = {"offload_to_disk_path": tempfile.mkdtemp()} if disk else {}
    apply_group_offloading(pipe.transformer, onload_device="cpu", num_blocks_per_group=2, **more)
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
    "taylor_seer": Case(
        options={"cache": {"type": "taylor_seer", "cache_identifiers": [LAYERS], "cache_interval": 2}},
        cache=lambda pipe, steps: diffusers.TaylorSeerCacheConfig(
            cache_interval=2, cache_identifiers=[LAYERS]
        ),
    ),
    "mag": Case(
        options={"cache": {"type": "mag", "mag_ratios": [1.0, 0.99, 1.01]}},
        cache=lambda pipe, steps: diffusers.MagCacheConfig(
            mag_ratios=[1.0, 0.99, 1.01], num_inference_steps=steps
        ),
    ),
    "pyramid": Case(
        options={"cache": "pyramid"},
        cache=lambda pipe, steps: diffusers.PyramidAttentionBroadcastConfig(
            current_timestep_callback=lambda: pipe.current_timestep
        ),
    ),
    "faster": Case(
        model="cogvideox",
        options={"cache": "faster"},
        cache=lambda pipe, steps: diffusers.FasterCacheConfig(
            current_timestep_callback=lambda: pipe.current_timestep
        ),
    ),
    "two denoisers": Case(
        model="wan_moe",
        options={"cache": {"type": "mag", "mag_ratios": [1.0]}},
        cache=lambda pipe, steps: diffusers.MagCacheConfig(mag_ratios=[1.0], num_inference_steps=steps),
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
    "group": Case(
        options={"offload": {"type": "group", "blocks": 2}}, once=group_offload, changes_frames=False
    ),
    "disk": Case(
        options={"offload": {"type": "group", "blocks": 2, "disk": "here"}},
        once=lambda pipe: group_offload(pipe, disk=True),
        changes_frames=False,
    ),
    "tiling": Case(options={"vae_tiling": True}, once=lambda pipe: pipe.vae.enable_tiling(), more=WIDE),
    "slicing": Case(
        options={"vae_slicing": True}, once=lambda pipe: pipe.vae.enable_slicing(), changes_frames=False
    ),
}


def requests(model: str = "wan", **more: Any) -> list[Request]:
    prompts = ("a red ball", "一只猫")
    return [
        Request(
            arguments=SMALLEST[model] | {"prompt": prompts[i % 2], "num_inference_steps": 5 + i % 2} | more,
            seed=i,
        )
        for i in range(4)
    ]


def rendered(model: Model, rows: list[Request], batching: Batching = GROWING) -> list[Clip]:
    clips = list(Renderer(model, batching).render(rows))
    assert all(isinstance(clip, Clip) for clip in clips), clips
    return sorted(clips, key=lambda clip: clip.request.seed)  # type: ignore[arg-type]


def by_hand(case: Case, rows: list[Request]) -> Iterator[str]:
    """What a script without framefleet renders."""
    kind = type(plain(case.model))
    pipe = kind.from_pretrained(tiny(case.model), dtype=torch.float32, **case.loading)
    pipe.set_progress_bar_config(disable=True)
    case.once(pipe)
    denoisers = [pipe.transformer, *([pipe.transformer_2] if case.model == "wan_moe" else [])]
    for row in rows:
        for denoiser in denoisers if case.cache else ():
            denoiser.enable_cache(case.cache(pipe, row.arguments["num_inference_steps"]))  # type: ignore[misc]
        yield digest(pipe, row)
        for denoiser in denoisers if case.cache else ():
            denoiser.disable_cache()


def plain(model: str) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny(model), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def digest(pipe: Any, row: Request) -> str:
    output = pipe(**row.arguments, generator=row.generator(), output_type="np")
    return frames_sha256(to_frames(output))


@pytest.mark.parametrize("name", sorted(CASES))
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


def test_an_option_gives_a_row_another_identity_and_its_default_does_not() -> None:
    def row_id(**options: Any) -> str:
        (clip,) = Renderer(load_model(tiny("wan"), **options)).render(requests()[:1])
        return clip.row_id

    left_alone = row_id()
    assert row_id(vae_tiling=False, cache=None) == left_alone
    assert row_id(vae_tiling=True) != left_alone
    assert row_id(cache="first_block") == row_id(cache={"type": "first_block", "threshold": 0.05})


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

    def count(name: str, original: Callable[..., Any], latents: torch.Tensor, **kwargs: Any) -> Any:
        sizes.append(latents.shape[0])
        return original(latents, **kwargs)

    for slicing in (False, True):
        vae = load_model(tiny("sd"), dtype="fp32", vae_slicing=slicing).pipe.vae
        with intercept({"decoder": vae.decoder}, count), torch.no_grad():
            vae.decode(torch.zeros(2, 4, 2, 2))
    assert sizes == [2, 1, 1]


def test_a_cache_leaves_nothing_behind_though_rows_fail() -> None:
    def broken(pipe: Any, request: Request) -> Any:
        generate(pipe, request)
        raise KeyError("after the cache was filled")

    recipes = {"broken": Recipe(name="broken", function=broken, digest="")}
    model = load_model(tiny("wan"), dtype="fp32", cache={"type": "mag", "mag_ratios": [1.0]})
    first, second = requests()[:2]
    rows = [first, Request(arguments=second.arguments, recipe="broken"), second]
    outcomes = list(Renderer(model, recipes=recipes).render(rows))
    assert [type(outcome) for outcome in outcomes] == [Clip, Failure, Clip]
    stopped = Renderer(model).render(rows)
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert not any(hooks_of(module) for module in model.pipe.transformer.modules())
    assert digest(model.pipe, first) == digest(plain("wan"), first)


def test_auto_attention_falls_back_and_a_record_says_what_it_became() -> None:
    model = load_model(tiny("ltx"), dtype="fp32", attention="auto")  # LTX hands over a mask
    assert model.attention is not None
    assert model.attention.name == "_native_flash"
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
        clips = list(Renderer(model, GROWING, recipes=recipes).render(rows))
    assert {clip.environment["attention"] for clip in clips} == {"native"}
    assert sorted(starts) == sorted(2 * [row.seed for row in rows])
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("wan"), clip.request) for clip in clips]


def test_an_attention_backend_is_set_for_one_model_and_not_for_the_process() -> None:
    before = digest(plain("wan"), requests()[0])
    load_model(tiny("wan"), attention="_native_math")
    assert digest(plain("wan"), requests()[0]) == before


def test_components_that_take_turns_on_the_device_keep_their_hooks_and_frames() -> None:
    model = load_model(tiny("wan"), dtype="fp32")
    offload(model.pipe, ModelOffload(), device="cpu", denoisers=["transformer"])
    hooks = [module._hf_hook for module in (model.pipe.transformer, model.pipe.vae)]
    clips = rendered(model, requests())
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("wan"), clip.request) for clip in clips]
    assert [module._hf_hook for module in (model.pipe.transformer, model.pipe.vae)] == hooks
    assert sum(clip.batch_size for clip in clips) > len(clips)


def test_compiled_rows_are_those_of_plain_calls_compiled_by_hand() -> None:
    case = Case(
        options={"compile": True},
        once=lambda pipe: pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False),
    )
    model = load_model(tiny("wan"), dtype="fp32", compile=True)
    clips = rendered(model, requests(), Batching(max_rows=1))
    assert all(block._compiled_call_impl for block in model.pipe.transformer.blocks)
    assert [clip.frames_sha256 for clip in clips] == list(by_hand(case, [clip.request for clip in clips]))
    assert model.settings.numerics("exact")["compile"] is True


def test_models_whose_classes_are_not_of_diffusers_take_options_too() -> None:
    quantization = {"backend": "torchao", "type": "int8_weight_only"}
    pipe = load_model(crafter(TEXT), dtype="fp32", vae_tiling=True, quantization=quantization).pipe
    assert pipe.vae.use_tiling
    with pytest.raises(ModelError, match="VideoCrafterUNet3DModel does not take the caches"):
        load_model(crafter(TEXT), cache="first_block")


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("sd", {"cache": "first_block"}, "UNet2DConditionModel does not take the caches"),
        ("wan", {"cache": "taylor_seer"}, "would do nothing"),
        ("wan", {"cache": {"type": "taylor_seer", "cache_identifiers": ["("]}}, "does not fit"),
        ("wan", {"cache": "faster"}, "does not run both prompts in one forward"),
        ("sd", {"attention": "native"}, "UNet2DConditionModel has no choice of backends"),
        ("wan", {"attention": "flsh"}, "not one of diffusers' backends"),
        ("wan", {"attention": "_native_cudnn"}, "does not work on cpu"),
        ("cogvideox", {"compile": True}, "no regions of CogVideoXTransformer3DModel"),
        ("wan", {"compile": True, "cache": "first_block"}, "compile does not go together with cache"),
        ("wan", {"offload": "model"}, "needs a GPU"),
        ("wan", {"offload": {"type": "group", "stream": True}}, "needs a GPU"),
        ("wan", {"offload": {"type": "group", "level": "leaf", "blocks": 2}}, "they go one by one"),
        ("wan", {"quantization": {"backend": "torchao", "type": "float8_dynamic"}}, "does not run on cpu"),
        (
            "wan",
            {"quantization": {"backend": "quanto", "type": "int8", "components": ["unet"]}},
            "no weights in this model",
        ),
        (
            "wan",
            {"quantization": {"backend": "torchao", "type": "int8_weight_only", "components": ["vae"]}},
            "found nothing in vae",
        ),
        ("wan", {"vae_tilling": True}, "model option vae_tilling"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_the_fix(
    model: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_model(tiny(model), device="cpu", **options)
    assert caught.value.fix
