"""Which scheduler a name means for a model, and which are refused: decided without weights."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import UniPCMultistepScheduler

from framefleet.pipeline.errors import UserError
from framefleet.pipeline.model.specs.schedulers import SHORT_NAMES, resolve_scheduler
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.render import recipe_call
from tests.configs import DDIM, FLOW, SD, WAN, write_model


def spec_of(folder: Path, class_name: str, configs: dict[str, Any], **scheduler: Any) -> PipelineSpec:
    return inspect_model(
        write_model(folder, class_name, configs | {"scheduler": configs["scheduler"] | scheduler})
    )


@pytest.fixture
def wan(tmp_path: Path) -> PipelineSpec:
    return spec_of(tmp_path, "WanPipeline", WAN)


@pytest.fixture
def sd(tmp_path: Path) -> PipelineSpec:
    return spec_of(tmp_path, "StableDiffusionPipeline", SD)


def test_a_name_stands_for_a_class_and_keeps_its_changes_of_the_config(
    sd: PipelineSpec, wan: PipelineSpec
) -> None:
    names = (None, "UniPCMultistepScheduler", "unipc")
    assert {resolve_scheduler(name, wan).canonical for name in names} == {"UniPCMultistepScheduler"}
    choice = resolve_scheduler("euler_karras", sd)
    assert (choice.class_name, choice.overrides) == ("EulerDiscreteScheduler", {"use_karras_sigmas": True})
    assert choice.canonical == "euler_karras"


OWN = {
    "PNDMScheduler": {"skip_prk_steps": False},
    "UniPCMultistepScheduler": {"use_flow_sigmas": True, "flow_shift": 3.0, "shift": 5.0},
    "FlowMatchEulerDiscreteScheduler": {"shift": 0.0, "flow_shift": 5.0},
}


EULER, COGVIDEOX = "FlowMatchEulerDiscreteScheduler", "CogVideoXDPMScheduler"
FLOW_SIGMAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}


@pytest.mark.parametrize("class_name", OWN)
def test_a_models_own_scheduler_is_as_its_config_says(tmp_path: Path, class_name: str) -> None:
    """A name only stands for changes where the config was written for another class."""
    own = {"_class_name": class_name} | OWN[class_name]
    spec = spec_of(tmp_path, "StableDiffusion3Pipeline", SD | {"scheduler": {}}, **own)
    assert resolve_scheduler(None, spec).overrides == resolve_scheduler(class_name, spec).overrides == {}


@pytest.mark.parametrize("class_name", ["WanPipeline", "StableDiffusionPipeline"])
def test_the_canonical_name_means_the_same_scheduler(tmp_path: Path, class_name: str) -> None:
    spec = spec_of(tmp_path, class_name, WAN if class_name == "WanPipeline" else SD)
    usable = 0
    for name in SHORT_NAMES:
        try:
            choice = resolve_scheduler(name, spec)
        except UserError:
            continue
        usable += 1
        assert resolve_scheduler(choice.canonical, spec) == choice
    assert usable > 5


@pytest.mark.parametrize(
    ("class_name", "scheduler", "name", "found", "overrides"),
    [
        ("WanPipeline", WAN["scheduler"], "flow_euler", EULER, {"shift": 3.0}),
        ("StableDiffusion3Pipeline", FLOW, "unipc", "UniPCMultistepScheduler", FLOW_SIGMAS),
        ("CogVideoXPipeline", {"_class_name": "CogVideoXDDIMScheduler"}, "cogvideox_dpm", COGVIDEOX, {}),
        ("LTXPipeline", FLOW | {"stochastic_sampling": True}, None, EULER, {}),
        (
            "LTXPipeline",
            FLOW | {"stochastic_sampling": True},
            "flow_euler",
            EULER,
            {"stochastic_sampling": False},
        ),
    ],
)
def test_what_a_model_says_of_its_schedule_goes_along_under_another_name(
    tmp_path: Path, class_name: str, scheduler: Any, name: str | None, found: str, overrides: dict[str, Any]
) -> None:
    """Random steps are taken without a generator, as rows have global ones of their own."""
    choice = resolve_scheduler(name, spec_of(tmp_path, class_name, SD | {"scheduler": scheduler}))
    assert (choice.class_name, choice.overrides) == (found, overrides)


@pytest.mark.parametrize(
    "name", ["eulr", "euler_kara", "flow_eulr", "unpic", "ddimm", "FlowMatchEulr", "dpm"]
)
def test_each_scheduler_that_is_suggested_is_taken(sd: PipelineSpec, wan: PipelineSpec, name: str) -> None:
    for spec in (sd, wan):
        with pytest.raises(UserError) as caught:
            resolve_scheduler(name, spec)
        names = re.split(r"did you mean|use one of", caught.value.fix)[1].split(";")[0]
        classes = [resolve_scheduler(other, spec).class_name for other in re.findall(r"\w+", names)]
        assert classes and all(classes)


@pytest.mark.parametrize(
    "name",
    ["ddpm", "ddim", "euler", "euler_karras", "unipc_karras", "dpmpp_2m_karras", "SASolverScheduler"],
)
def test_a_flow_model_refuses_noise_schedulers_and_says_which_it_takes(wan: PipelineSpec, name: str) -> None:
    with pytest.raises(UserError, match="flow matching") as caught:
        resolve_scheduler(name, wan)
    assert "flow_euler" in caught.value.fix and "ddim" not in caught.value.fix


FLUX, LTX = ({**FLOW, "use_dynamic_shifting": is_shifted} for is_shifted in (False, True))


@pytest.mark.parametrize(
    ("class_name", "scheduler", "name", "problem"),
    [
        ("StableDiffusionPipeline", DDIM, "flow_euler", "predict noise"),
        ("StableDiffusionPipeline", DDIM, "cogvideox_ddim", "predict noise"),
        ("CogVideoXPipeline", {"_class_name": "CogVideoXDDIMScheduler"}, "ddim", "its own scheduler"),
        ("LTXPipeline", LTX, "flow_heun", "`sigmas`"),
        ("FluxPipeline", FLUX, "dpmpp_2m", "`mu`"),
        ("WanPipeline", WAN["scheduler"], "flow_euler(shift=0)", "not numbers"),
    ],
)
def test_a_scheduler_that_cannot_do_what_the_pipeline_asks_of_it_is_refused(
    tmp_path: Path, class_name: str, scheduler: dict[str, Any], name: str, problem: str
) -> None:
    spec = spec_of(tmp_path, class_name, SD | {"scheduler": scheduler})
    with pytest.raises(UserError, match=problem):
        resolve_scheduler(name, spec)


def test_a_model_of_continuous_timesteps_takes_only_the_scheduler_that_gives_them(tmp_path: Path) -> None:
    own = {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}
    spec = spec_of(tmp_path, "StableVideoDiffusionPipeline", SD | {"scheduler": DDIM | own})
    assert resolve_scheduler("euler_karras", spec).overrides == {"use_karras_sigmas": True}
    with pytest.raises(UserError, match="logarithms of the noise level") as caught:
        resolve_scheduler("ddim", spec)
    assert "use one of euler, euler_karras;" in caught.value.fix


def test_step_counts_are_bounded_by_the_schedule(tmp_path: Path, sd: PipelineSpec) -> None:
    assert (resolve_scheduler(None, sd).min_steps, resolve_scheduler(None, sd).max_steps) == (1, 1000)
    assert resolve_scheduler("lcm", sd).max_steps == 50
    ltx = spec_of(tmp_path / "ltx", "LTXPipeline", SD | {"scheduler": FLOW | {"shift_terminal": 0.1}})
    assert resolve_scheduler(None, ltx).min_steps == 2
    pndm = SD | {"scheduler": {"_class_name": "PNDMScheduler"}}
    assert resolve_scheduler(None, spec_of(tmp_path / "pndm", "PNDMPipeline", pndm)).min_steps == 4
    assert resolve_scheduler("pndm", sd).min_steps == 1


def test_settings_follow_a_scheduler_and_are_written_in_one_way(sd: PipelineSpec) -> None:
    found = resolve_scheduler("euler( use_karras_sigmas = true,timestep_spacing=trailing )", sd)
    assert found.class_name == "EulerDiscreteScheduler"
    assert found.overrides == {"timestep_spacing": "trailing", "use_karras_sigmas": True}
    assert found.canonical == "EulerDiscreteScheduler(timestep_spacing=trailing, use_karras_sigmas=True)"
    assert resolve_scheduler(found.canonical, sd) == found
    assert resolve_scheduler("euler_karras(use_karras_sigmas=true)", sd).canonical == "euler_karras"
    assert resolve_scheduler("euler()", sd).canonical == "EulerDiscreteScheduler"


def test_a_flow_models_own_shift_is_set_and_its_terminal_taken_off(tmp_path: Path) -> None:
    own = FLOW | {"use_dynamic_shifting": True, "shift_terminal": 0.02}
    spec = spec_of(tmp_path, "QwenImagePipeline", SD | {"scheduler": own})
    found = resolve_scheduler("flow_euler(base_shift=1.0986, max_shift=1.0986, shift_terminal=none)", spec)
    assert found.overrides == {"base_shift": 1.0986, "max_shift": 1.0986, "shift_terminal": None}
    assert (found.min_steps, resolve_scheduler(None, spec).min_steps) == (1, 2)
    assert resolve_scheduler("unipc(flow_shift=5)", spec).overrides["flow_shift"] == 5
    assert resolve_scheduler("unipc(flow_shift=5)", spec) == resolve_scheduler("unipc(flow_shift=5.0)", spec)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("euler(", "cannot be read"),
        ("euler(timestep_spacing)", "cannot be read"),
        ("euler(timestep_spacing='__import__(1)')", "cannot be read"),
        ("euler(num_train_timesteps=1000000000)", "no setting"),
        ("euler(timestep_spacng=trailing)", "no setting"),
        ("euler(use_karras_sigmas=3)", "use true or false"),
        ("euler(steps_offset=1e400)", "use a whole number"),
        ("euler(steps_offset=99999999)", "use a whole number of at most 1,000,000"),
        ("euler(timestep_spacing=none)", "use linspace or leading or trailing"),
        ("euler(timestep_spacing=trailling)", "use linspace or leading or trailing"),
        (f"euler(sigma_max={'9' * 4000})", "use a number"),
        ("euler(beta_start=nan)", "use a number"),
        ("euler(beta_schedule=loudly)", "loudly is not implemented"),
        ("euler_a(timestep_spacing=trailling)", "trailling is not supported"),
        ("lcm(original_inference_steps=0)", "does not take these settings"),
        ("nobody(timestep_spacing=trailing)", "no scheduler is named"),
    ],
)
def test_settings_that_a_scheduler_does_not_take_are_refused(sd: PipelineSpec, cell: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve_scheduler(cell, sd)


def test_a_table_of_many_schedulers_leaves_few_in_memory(wan: PipelineSpec) -> None:
    own = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    model: Any = SimpleNamespace(pipe=SimpleNamespace(scheduler=own), spec=wan)
    schedulers, built = recipe_call.last_schedulers(model), list[weakref.ref[Any]]()
    for number in range(1, 201):
        name = f"flow_euler(shift={number})"
        made = schedulers(name)["scheduler"]
        assert schedulers(name)["scheduler"] is made, "each is built once"
        built.append(weakref.ref(made))
    del made
    assert sum(scheduler() is not None for scheduler in built) < 100
