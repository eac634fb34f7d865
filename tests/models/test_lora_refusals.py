"""Each weight of a LoRA's file has an effect, or is named in a refusal: in the formats of six programs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from framefleet import ModelError, Renderer, Request, load_model
from framefleet.pipeline.model.lora import fetch_lora, loras_of
from framefleet.pipeline.model.lora_loading import load_loras
from tests.long import examples
from tests.loras import DIALECTS, plain_pipe
from tests.tiny import tiny

_Keys = dict[str, Tensor]
BLOCK = "diffusion_model.blocks.0"
QUERY = f"{BLOCK}.self_attn.q"


@pytest.fixture(scope="module")
def own() -> _Keys:
    """Return the weights of a LoRA that fits, as ComfyUI has them."""
    layers = DIALECTS["original Wan"].layers(plain_pipe("wan", torch.float32))
    return {key: weight for layer in layers for key, weight in layer.items()}


def refusal(keys: _Keys, folder: Path, model: str = "wan", **options: Any) -> ModelError:
    save_file(keys, folder / "x.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(tiny(model), dtype="fp32", loras={"x": folder / "x.safetensors"}, **options)
    assert f"loras.x: {folder / 'x.safetensors'}" in caught.value.problem and caught.value.fix
    assert len(str(caught.value)) < 1500
    return caught.value


def renamed(keys: _Keys, start: str, *ends: str) -> _Keys:
    """Return layers under another start, with weights of another kind."""
    layers = {key.rsplit(".", 2)[0].removeprefix("diffusion_model.") for key in keys}
    return {f"{start}{layer}.{end}": torch.ones(2, 2) for layer in sorted(layers) for end in ends}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda k: renamed(k, "diffusion_model.", "hada_w1_a", "hada_w1_b"), r"of LoHa \(.*hada_w1_a"),
        (lambda k: renamed(k, "diffusion_model.", "lokr_w1", "lokr_w2"), r"of LoKr \(.*lokr_w1"),
        (lambda k: renamed(k, "lycoris_", "lokr_w1", "lokr_w2"), r"of LoKr \(.*lokr_w1"),
        (lambda k: renamed(k, "transformer.", "ia3_l"), r"of IA3 \(.*ia3_l|no layer for .*ia3_l"),
        (lambda k: renamed(k, "diffusion_model.", "diff"), r"uses none of its .*cross_attn\.k\.diff"),
        (
            lambda k: {f"lora_unet_{key[16:].replace('.', '_', 3)}": k[key] for key in k if "self_" in key},
            r"looks for blocks_0_\w+\.\S+ next to lora_unet_blocks_0_self_attn_",
        ),
        (lambda k: {**k, f"{BLOCK}.norm3.diff": torch.ones(32)}, r"norm3\.diff$"),
        (lambda k: {**k, f"{QUERY}.diff_b": torch.ones(7)}, "made for a layer 7 wide, .* is 32"),
        (lambda k: {**k, f"{QUERY}.diff_b": torch.ones(32)}, r"no weight .*lora_B\.bias, next to"),
        (lambda k: {**k, f"{QUERY}.scale_weight": torch.ones(1)}, r"packed in fp8.*q\.scale_weight"),
        (lambda k: {**k, "scaled_fp8": torch.ones(2)}, r"packed in fp8.*scaled_fp8"),
        (lambda k: {**k, f"{BLOCK}99999999.self_attn.q.diff_b": torch.ones(2)}, "higher than in any"),
        (lambda k: k | {f"{BLOCK}.extra{at}.diff": torch.ones(1) for at in range(5_000)}, "and 4,997 more"),
    ],
)
def test_what_diffusers_leaves_out_is_named(
    change: Callable[[_Keys], _Keys], said: str, own: _Keys, tmp_path: Path
) -> None:
    error = refusal(change(own), tmp_path)
    assert re.search(said, error.problem), error.problem
    assert "KeyError" not in str(error) and "list index" not in str(error)


def test_peft_files_that_name_no_part_of_the_pipeline_are_told_from_those_of_other_models(
    tmp_path: Path,
) -> None:
    layers = DIALECTS["peft"].layers(plain_pipe("wan", torch.float32))
    keys = {key.replace("transformer.", "base_model.model.", 1): w for key, w in layers[0].items()}
    assert "rename its weights" in refusal(keys, tmp_path).fix


@pytest.mark.parametrize(
    ("name", "model"), [("emb_params", "sd"), ("string_to_param.*", "wan"), ("<cat-toy>", "sd")]
)
def test_a_textual_inversion_is_told_from_a_lora(name: str, model: str, tmp_path: Path) -> None:
    error = refusal({name: torch.ones(2, 32)}, tmp_path, model)
    assert "of a textual inversion" in error.problem and "load_textual_inversion" in error.fix


def test_a_copy_of_a_model_with_a_textual_inversion_renders_as_plain_calls_do(tmp_path: Path) -> None:
    pipe = plain_pipe("sd", torch.float32)
    vectors = torch.randn(2, pipe.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": vectors}, tmp_path / "toy.safetensors")
    pipe.load_textual_inversion(str(tmp_path / "toy.safetensors"), token="<toy>")
    pipe.save_pretrained(tmp_path / "copy")
    renderer, frames = Renderer(load_model(tmp_path / "copy", dtype="fp32")), []
    for prompt in ("a <toy> on a table", "a thing on a table"):
        arguments = {"prompt": prompt, "num_inference_steps": 2, "height": 32, "width": 32}
        generator = torch.Generator("cpu").manual_seed(1)
        plain = pipe(**arguments, generator=generator, output_type="np").images[0]
        (clip,) = renderer.render([Request(arguments=arguments, seed=1)])
        frames.append((plain * 255).round().astype("uint8"))
        assert np.array_equal(clip.frames[0], frames[-1])
    assert not np.array_equal(*frames)


def test_what_has_no_use_may_be_left_out_by_a_setting_that_is_part_of_each_row(
    own: _Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = own | {f"{BLOCK}.norm3.diff": torch.ones(32)}
    assert "allow_unmatched_weights" in refusal(keys, tmp_path).fix
    loras = {"x": tmp_path / "x.safetensors"}
    model = load_model(tiny("wan"), dtype="fp32", loras=loras, allow_unmatched_weights=True)
    assert f"{BLOCK}.norm3.diff" in caplog.text
    assert model.settings.numerics("exact")["allow_unmatched_weights"] is True
    packed = own | {f"{QUERY}.scale_weight": torch.ones(1)}
    assert "packed in fp8" in refusal(packed, tmp_path, allow_unmatched_weights=True).problem


def test_a_folder_of_a_lora_may_hold_what_a_desktop_leaves_there(own: _Keys, tmp_path: Path) -> None:
    attention = {key: weight for key, weight in own.items() if "attn" in key}  # of all layers
    save_file(attention, tmp_path / "x.safetensors")
    for junk in ("._x.safetensors", ".DS_Store", "__MACOSX/._x.safetensors", "x.safetensors~"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"\0")
    load_model(tiny("wan"), loras={"x": tmp_path})


@cache
def bare(model: str) -> Any:
    return plain_pipe(model, torch.float32)


def loaded(pipe: Any, keys: dict[str, Tensor], folder: Path, name: str) -> list[Tensor]:
    """Load a file and return all numbers of its adapter, layer by layer; it is taken away again."""
    path = folder / f"{name}.safetensors"
    save_file(keys, path)
    try:
        load_loras(pipe, {"x": fetch_lora("x", loras_of({"x": path})["x"])}, allow_unmatched=False)
        return [
            number
            for network in pipe.components.values()
            if isinstance(network, nn.Module)
            for layer in network.modules()
            if isinstance(layer, BaseTunerLayer)
            for number in (
                torch.tensor(layer.scaling["adapter_x"]),  # type: ignore[index]
                *(weight.detach().clone() for key, weight in layer.named_parameters() if ".adapter_x" in key),
            )
        ]
    finally:
        pipe.unload_lora_weights()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_weight_of_a_file_has_an_effect_or_is_named_in_a_refusal(dialect: str, tmp_path: Path) -> None:
    own = DIALECTS[dialect]
    pipe = bare(own.model)
    layers = own.layers(pipe)

    @settings(max_examples=examples(18), deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        some = st.lists(st.sampled_from(range(len(layers))), min_size=1, unique=True)
        chosen = data.draw(some | st.just([*range(len(layers))]), label="layers")
        keys = {key: weight for at in sorted(chosen) for key, weight in layers[at].items()}
        if own.biases and data.draw(st.booleans(), label="biases"):
            keys |= {
                f"{key.rsplit('.', 2)[0]}.{own.biases}": weight[:, 0].clone()
                for key, weight in list(keys.items())
                if key.endswith((".lora_up.weight", ".lora_B.weight"))
            }
        near = layers[data.draw(st.sampled_from(sorted(chosen)), label="near")]
        others = own.others(near)
        names = data.draw(st.lists(st.sampled_from(sorted(others)), unique=True, max_size=3), label="others")
        cut = data.draw(st.sampled_from([None, *sorted(keys)]), label="without")
        keys = {key: weight for key, weight in keys.items() if key != cut} | {
            name: others[name] for name in names
        }
        try:
            before = loaded(pipe, keys, tmp_path, "a")
        except ModelError as error:
            assert error.fix and error.problem[-1] != "'" and len(str(error)) < 2000
            is_readable = cut is None and (not own.is_whole or len(chosen) == len(layers))
            expected = names if names and is_readable else [*keys, *filter(None, [cut])]
            assert any(key in str(error) for key in expected), str(error)
            assert names or not is_readable, str(error)
            return
        assert not names, "what has no use was taken"
        key = data.draw(st.sampled_from(sorted(keys)), label="changed")
        try:
            after = loaded(pipe, keys | {key: keys[key] + 1}, tmp_path, "b")
        except ModelError as error:  # of alphas: diffusers takes some only where all are equal
            assert key in str(error) and key.endswith("alpha")
            return
        assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True)), key

    check()


@pytest.mark.parametrize("dialect", ["original Wan", "peft"])
@pytest.mark.parametrize(
    ("start", "adapter"), [("", "default"), ("pipe.dit.", "default"), ("base_model.model.", "style")]
)
def test_the_name_of_peft_s_adapter_is_left_out_of_names_as_diffsynth_has_them(
    start: str, adapter: str, dialect: str, tmp_path: Path
) -> None:
    pipe, own = bare("wan"), DIALECTS[dialect]
    usual = {key: weight for layer in own.layers(pipe) for key, weight in layer.items()}
    ends = {"lora_down": "lora_A", "lora_up": "lora_B"}
    named = {}
    for key, weight in usual.items():
        layer, half, end = key.partition(".")[2].rsplit(".", 2)
        named[f"{start}{layer}.{ends.get(half, half)}.{adapter}.{end}"] = weight
    pairs = zip(loaded(pipe, named, tmp_path, "a"), loaded(pipe, usual, tmp_path, "b"), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
