"""Options of `model:` as text: what is taken, what is refused, what of them is in a row's identity."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.options.attention import (
    Attention,
    AttentionChanged,
    candidates,
    has_choice,
    works,
)
from framefleet.pipeline.model.options.schema import SPEEDS, Options, Speed, read_options
from framefleet.plugins.keep.replay.recorded_row import recorded_options
from framefleet.plugins.keep.replay.script_setup import script_setup
from tests.commands import command
from tests.tiny import tiny

EVERY: dict[str, Any] = {
    "allow_unmatched_weights": True,
    "attention": "auto",
    "cache": {"type": "pyramid", "cross_attention_block_skip_range": 3},
    "channels_last": True,
    "compile": True,
    "fuse_qkv": True,
    "layerwise_casting": "fp8_e5m2",
    "matmul": "triton",
    "offload": {"type": "group", "blocks": 2, "disk": "/scratch"},
    "quantization": {"backend": "quanto", "type": "int4", "components": ["transformer"]},
    "vae_slicing": True,
    "vae_tiling": True,
}
LIBRARIES = {"transformer": "diffusers", "text_encoder": "transformers", "vae": "diffusers"}
QUANTIZATION = "a mapping (e.g. {backend: torchao, type: int8_weight_only})"


def refusal(**model: Any) -> JobError:
    with pytest.raises(JobError) as caught:
        framefleet.plan({"table": "t", "output": "o", "model": {"path": "m", **model}})
    return caught.value


def test_every_option_has_its_place_in_the_identity() -> None:
    assert {*EVERY, "speed"} == set(Options.model_fields)
    assert Options().numerics() == read_options({"cache": None, "compile": False}).numerics() == {}
    numerics = read_options(EVERY).numerics()
    assert set(numerics) == set(EVERY)
    for name in EVERY:
        assert read_options({name: EVERY[name]}).numerics() == {name: numerics[name]}


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"cache": "first_block"}, {"cache": {"type": "first_block", "threshold": 0.05}}),
        ({"offload": "group"}, {"offload": {"type": "group", "blocks": 1}}),
        (
            {"cache": "pyramid"},
            {"cache": {"type": "pyramid", "spatial_attention_timestep_skip_range": [100, 800]}},  # as numbers
        ),
    ],
)
def test_a_name_alone_is_the_mapping_with_its_defaults(short: dict[str, Any], long: dict[str, Any]) -> None:
    assert canonical_json(read_options(short).numerics()) == canonical_json(read_options(long).numerics())


def test_a_record_gives_the_options_back_with_what_auto_became() -> None:
    found = recorded_options(read_options(EVERY).numerics() | {"threads": 1}, {"attention": "flash"})
    assert found.attention == "flash"
    assert found.numerics() == read_options(EVERY).numerics() | {"attention": "flash"}
    assert "/scratch" not in str(found.numerics())
    assert recorded_options({}, {"device": "cuda:1", "matmul": "no_split_k"}).matmul == "no_split_k"
    assert recorded_options({"matmul": "default"}, {"device": "cpu"}).matmul == "default"
    became_nothing = recorded_options({"attention": "auto", "vae_tiling": True}, {})
    assert became_nothing == read_options({"vae_tiling": True})


@pytest.mark.parametrize("speed", ["compiled", "fastest"])
def test_a_preset_is_the_options_that_it_sets(speed: Speed) -> None:
    by_hand = read_options(SPEEDS[speed]).numerics()
    assert by_hand["compile"] is True
    assert read_options({"speed": speed}).numerics() == by_hand
    job = load_job({"table": "t", "output": "o", "model": {"path": "m", "speed": speed}})
    assert job.model.options.numerics() == by_hand


def test_what_a_job_says_itself_stays_beside_a_preset() -> None:
    said = ["model.speed=compiled", "model.compile=false", "model.attention=native"]
    job = load_job(None, said, table="t", output="o", model="m")
    assert job.model.options.numerics() == {"attention": "native"}


def test_plan_prints_what_a_preset_came_to(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\na red ball\n")
    places = ("--table", tmp_path / "t.csv", "--model", tiny("wan"), "--output", tmp_path / "out")
    ended = command(
        "plan", *places, "--set", "model.speed=compiled", "--set", "model.attention=native", exits=0
    )
    assert ", attention: native, compile: true)\n" in ended.output


@pytest.mark.parametrize(
    "cache", [{"type": "first_block", "threshold": math.inf}, {"type": "mag", "mag_ratios": [1.0, math.nan]}]
)
def test_numbers_that_json_does_not_hold_are_refused(cache: dict[str, Any]) -> None:
    assert "finite" in refusal(cache=cache).fix


@pytest.mark.parametrize(
    ("model", "problem", "fix"),
    [
        ({"quantisation": 1}, "unknown key `model.quantisation`", "did you mean `model.quantization`?"),
        ({"cache": {"type": "first_block", "treshold": 1}}, "unknown key `model.cache.treshold`", "did you"),
        ({"cache": {"type": "first_block", "max_order": 1}}, "unknown key `model.cache.max_order`", "known"),
        ({"cache": "teacache"}, "`model.cache` has the type 'teacache'", "it must be one of first_block, "),
        ({"cache": "mag"}, "the job has no `model.cache.mag_ratios`", "write `model: {cache: {mag_"),
        ({"cache": {"threshold": 1}}, "`model.cache` has no `type`", "write `model: {cache: {type: ...}}`"),
        ({"quantization": "torchao"}, "`model.quantization` is 'torchao'", f"it must be {QUANTIZATION}"),
        ({"offload": {"type": "group", "blocks": 0}}, "`model.offload.blocks` is 0", "it must be a number"),
        ({"offload": {"type": "group", "disk": "s3://b"}}, "`model.offload.disk` is 's3://b'", "it must"),
        ({"speed": "fast"}, "`model.speed` is 'fast'", "it must be compiled or fastest"),
        ({"compile": "yes"}, "`model.compile` is 'yes'", "it must be true or false"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_the_fix(model: dict[str, Any], problem: str, fix: str) -> None:
    error = refusal(**model)
    assert error.problem == problem
    assert error.fix.startswith(fix)


def test_a_program_gets_the_same_example_of_a_mapping() -> None:
    with pytest.raises(ModelError) as caught:
        read_options({"quantization": "int8"})
    assert caught.value.fix == f"it must be {QUANTIZATION}"
    with pytest.raises(ModelError, match="no option 'treads'"):
        read_options({"treads": 1})


def test_a_script_makes_the_calls_in_the_order_of_a_worker() -> None:
    options = read_options({**EVERY, "attention": "flash", "offload": {"type": "group", "stream": True}})
    setup = script_setup(options, LIBRARIES, device="cuda", steps=7)
    order = "fuse_qkv_projections layerwise_casting channels_last use_triton tiling apply_group_offloading"
    names = [*order.split(), "attention", "compile", "enable_cache"]
    text = "\n".join(setup.lines)
    assert sorted(names, key=text.index) == names
    assert "pipe.vae.to(memory_format=torch.channels_last)" in text
    assert "framefleet.pipeline.model.triton_linear.use_triton(pipe.transformer)" in text
    assert "pipe.to(" not in text
    assert "'transformer': QuantoConfig(weights_dtype='int4')" in setup.quantization
    assert setup.modules == {"diffusers.hooks", "framefleet.pipeline.model.triton_linear"}
    assert {"QuantoConfig", "attention_backend", "PyramidAttentionBroadcastConfig"} <= set(setup.classes)


def test_a_script_without_options_places_the_pipeline_and_no_more() -> None:
    setup = script_setup(Options(), LIBRARIES, device="cuda:1", steps=7)
    assert (setup.quantization, list(setup.lines)) == ("", ["pipe.to('cuda:1')"])
    assert not setup.modules and not setup.classes


REFUSED = RuntimeError("no such kernel")


def transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, ffn_dim=8, text_dim=8, num_layers=1
    )


def takes(model: WanTransformer3DModel, *names: str) -> Callable[[], None]:
    """A call that only these backends take."""

    def call() -> None:
        if model.blocks[0].attn1.processor._attention_backend.value not in names:
            raise REFUSED

    return call


def test_a_refused_call_goes_to_the_next_backend_that_takes_it() -> None:
    model = transformer()
    attention = Attention({"transformer": model}, ["_native_flash", "_native_math", "native"])
    with pytest.raises(AttentionChanged):
        attention.replace(takes(model, "native"), REFUSED)
    assert attention.name == "native"
    assert model.blocks[0].attn2.processor._attention_backend is AttentionBackendName.NATIVE


@pytest.mark.parametrize(("names", "error"), [((), REFUSED), (("native",), torch.OutOfMemoryError("20 GiB"))])
def test_what_every_backend_raises_and_memory_that_ran_out_are_no_refusals(
    names: tuple[str, ...], error: RuntimeError
) -> None:
    model = transformer()
    attention = Attention({"transformer": model}, ["_native_flash", "native"])
    attention.replace(takes(model, *names), error)
    assert attention.name == "_native_flash"
    assert model.blocks[0].attn1.processor._attention_backend is AttentionBackendName._NATIVE_FLASH


def test_the_default_of_the_process_stays_as_it_was() -> None:
    query = torch.randn(1, 16, 2, 8)
    before = dispatch_attention_fn(query, query, query)
    Attention({"transformer": transformer()}, ["_native_math"])
    assert torch.equal(dispatch_attention_fn(query, query, query), before)
    assert not torch.equal(dispatch_attention_fn(query, query, query, backend="_native_math"), before)


def test_on_a_cpu_auto_has_two_names_for_one_kernel() -> None:
    assert has_choice(transformer())
    assert all(works(name, device="cpu", dtype=torch.float32) for name in candidates("cpu"))
    assert not works("flash", device="cpu", dtype=torch.float32)
