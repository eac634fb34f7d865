"""Schedules of guidance: read, spelled in one way, followed from step to step, or refused with the reason."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, strategies as st

from framefleet.pipeline.errors import RecipeError, Refused
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.recipes.guidance import (
    GUIDANCE_ARGUMENTS,
    Guidance,
    Schedule,
    check_schedule,
    is_schedule,
    open_guidance,
    parse_guidance,
)
from framefleet.pipeline.recipes.second_model import call_parameters
from framefleet.plugins.recipes.siblings import SIBLINGS
from tests.each import check_each


def _schedule(text: str) -> Schedule:
    found = parse_guidance(text)
    assert isinstance(found, Schedule), found
    return found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("linear(7, 3)", [7.0, 6.0, 5.0, 4.0, 3.0]),
        ("cosine(7, 3)", [7.0, 6.414213562373095, 5.0, 3.585786437626905, 3.0]),
        ("oscillating(7, 1)", [7.0, 1.0, 7.0, 1.0, 7.0]),
        ("interval(7, 0.2, 0.8)", [1.0, 7.0, 7.0, 7.0, 1.0]),
        ("interval(7, 0, 1)", [7.0] * 5),
        ("linear(5, 5)", [5.0] * 5),  # between equal numbers exactly that number
        ("cosine(5.3, 5.3)", [5.3] * 7),
        ("oscillating(0.1, 0.1)", [0.1] * 7),
    ],
)
def test_a_schedule_has_a_value_for_every_step(text: str, values: list[float]) -> None:
    found = [_schedule(text).value(step, len(values)) for step in range(len(values))]
    assert found == pytest.approx(values) and (found == values or len({*values}) > 1)


@given(st.sampled_from(["linear", "cosine", "oscillating"]), st.floats(0, 50), st.floats(0, 50))
def test_the_first_value_does_not_depend_on_the_number_of_steps(shape: str, a: float, b: float) -> None:
    schedule = _schedule(f"{shape}({a}, {b})")
    assert {schedule.value(0, steps) for steps in (1, 2, 50)} == {schedule.value(0, 1)}
    assert all(min(a, b) - 1e-9 <= schedule.value(step, 9) <= max(a, b) + 1e-9 for step in range(9))


@pytest.mark.parametrize("text", [" linear( 7,3.0 ) ", "linear(7, 3)", "linear(7.0, 3.0)"])
def test_a_schedule_has_one_spelling_that_reads_back(text: str) -> None:
    assert str(_schedule(text)) == "linear(7.0, 3.0)"
    assert parse_guidance(str(_schedule(text))) == _schedule(text)


@pytest.mark.parametrize(
    ("text", "reason", "fix"),
    [
        ("strong", "neither a number nor a schedule", "linear(first, last)"),
        ("liner(7, 3)", "no schedule 'liner'", "did you mean linear?"),
        ("linear(7)", "linear takes 2 finite numbers", "write linear(first, last)"),
        ("linear(7, nan)", "finite numbers", "linear(first, last)"),
        ("cosine(7, -1)", "from 0 to 1000", "from 0 to 1000"),
        ("linear(7, 1e308)", "from 0 to 1000", "from 0 to 1000"),
        ("interval(7, 0.8, 0.2)", "parts of the run", "start < end"),
        ("__import__('os')", "no schedule", "use linear"),
    ],
)
def test_a_text_that_is_no_schedule_is_refused_with_the_fix(text: str, reason: str, fix: str) -> None:
    found = parse_guidance(text)
    assert isinstance(found, Refused)
    assert reason in found.reason and fix in found.fix


def test_arithmetic_takes_the_value_of_the_step_and_comparisons_the_highest() -> None:
    scale, tensor = Guidance(_schedule("linear(0.5, 6.5)")), torch.tensor([1.0, 3.0], dtype=torch.bfloat16)
    scale.end_step(0, 3)
    assert (scale * 2, 2 * scale, scale - 1, scale + 1) == (7.0, 7.0, 2.5, 4.5)
    assert scale > 1 and scale >= 1 and not scale < 1 and not scale <= 1
    for found in (scale * tensor, tensor * scale, torch.mul(tensor, scale), torch.mul(tensor, other=scale)):
        assert torch.equal(found, 3.5 * tensor)
    assert torch.equal(torch.lerp(tensor, 2 * tensor, scale), torch.lerp(tensor, 2 * tensor, 3.5))
    with pytest.raises((TypeError, RuntimeError)):  # it would be one value for the whole run
        torch.tensor([scale])
    with pytest.raises(TypeError):
        float(scale)  # type: ignore[arg-type]


def test_a_scale_starts_anew_after_the_last_step_for_the_next_call_of_a_recipe() -> None:
    arguments = open_guidance({"guidance_scale": "linear(7, 3)", "true_cfg_scale": 2.0, "prompt": "x"})
    scale, on_step_end = arguments["guidance_scale"], arguments["callback_on_step_end"]
    seen = []
    for steps in (3, 5):
        for step in range(steps):
            seen.append(scale.value)
            kwargs = {"latents": step}
            assert on_step_end(SimpleNamespace(num_timesteps=steps), step, None, kwargs) is kwargs
    assert seen == [7.0, 5.0, 3.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    assert arguments["true_cfg_scale"] == 2.0
    arguments = {"guidance_scale": 5.0, "prompt": "linear(7, 3)"}
    assert open_guidance(arguments) is arguments
    with pytest.raises(RecipeError, match="guidance_scale is 'strong', but it is neither"):
        open_guidance({"guidance_scale": "strong"})


@pytest.mark.parametrize(
    ("class_name", "name", "reason"),
    [
        ("FluxPipeline", "guidance_scale", "hands it to its network once"),
        ("StableVideoDiffusionPipeline", "max_guidance_scale", "a scale for each frame"),
        ("TextToVideoSDPipeline", "guidance_scale", "does not say which step"),
        ("LTX2Pipeline", "audio_guidance_scale", "a schedule can be given for guidance_scale"),
    ],
)
def test_a_pipeline_that_cannot_follow_a_schedule_refuses_it(class_name: str, name: str, reason: str) -> None:
    found = check_schedule(name, "linear(7, 3)", class_name=class_name, configs={})
    assert isinstance(found, Refused)
    assert reason in found.reason and "use a number" in found.fix


def test_true_cfg_scale_takes_what_embedded_guidance_does_not() -> None:
    for class_name in ("FluxPipeline", "HunyuanVideoPipeline"):
        refused = check_schedule("guidance_scale", "linear(7, 3)", class_name=class_name, configs={})
        assert isinstance(refused, Refused) and "true_cfg_scale" in refused.fix
        assert check_schedule("true_cfg_scale", "linear(7, 3)", class_name=class_name, configs={})
    unet: dict[str, dict[str, int]] = {"unet": {}}
    sd = "StableDiffusionPipeline"
    assert check_schedule("guidance_scale", "linear(7,3)", class_name=sd, configs=unet) == "linear(7.0, 3.0)"
    unet["unet"]["time_cond_proj_dim"] = 256  # a distilled one
    assert isinstance(check_schedule("guidance_scale", "linear(7,3)", class_name=sd, configs=unet), Refused)


def test_a_number_written_as_text_is_no_schedule() -> None:
    assert is_schedule("guidance_scale", "linear(7, 3)") and is_schedule("true_cfg_scale", "linear(7, 3)")
    for name, value in (("guidance_scale", "7.5"), ("guidance_scale", 7.5), ("prompt", "a cat (blue)")):
        assert not is_schedule(name, value)


KNOWN = sorted(
    {s.target for s in SIBLINGS} | {s.source for s in SIBLINGS} | {c for p in PRESETS for c in p.pipelines}
)


def test_what_takes_a_schedule_multiplies_by_the_scale_at_every_step() -> None:
    check_each(KNOWN, _multiplies_by_the_scale)


def _multiplies_by_the_scale(class_name: str) -> None:
    source = inspect.getsource(inspect.unwrap(class_named(class_name).__call__))
    for name in set(GUIDANCE_ARGUMENTS) & set(call_parameters(class_name)):
        found = check_schedule(name, "linear(7, 3)", class_name=class_name, configs={})
        is_input = re.search(rf"(tensor|full)\([^)]*\b{name}\b(?! - 1)|float\({name}\)", source) is not None
        is_input |= class_name.startswith("LatentConsistency")  # a UNet of "- 1" always, others seldom
        tells_steps = "callback_on_step_end" in call_parameters(class_name)
        tells_steps = tells_steps and hasattr(class_named(class_name), "num_timesteps")
        assert isinstance(found, Refused) is (is_input or not tells_steps), (class_name, name)
