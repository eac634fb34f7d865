"""The table of siblings agrees with diffusers, and refuses what has none with the models that can."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.model.families.family import Sibling
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.second_model import call_parameters
from framefleet.plugins.recipes.conditioning import conditioned_class
from framefleet.plugins.recipes.siblings import SIBLINGS, as_sibling, find_sibling, sibling_class

TI2V = {"index": {"expand_timesteps": True}}
A14B = {"index": {"boundary_ratio": 0.875}}


def _init(class_name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(class_named(class_name).__init__).parameters)


@pytest.mark.parametrize("sibling", SIBLINGS, ids=lambda sibling: sibling.target)
def test_a_sibling_is_made_of_the_others_components_and_takes_what_its_task_gives(sibling: Sibling) -> None:
    source, target = _init(sibling.source), _init(sibling.target)
    required = {name for name, parameter in target.items() if parameter.default is inspect.Parameter.empty}
    assert required <= set(source)
    given = {
        "image_to_video": {"image", "num_frames"},
        "video_to_video": {"video", "strength"},
        "image_to_image": {"image", "strength"},
    }[sibling.task]
    assert given | {"prompt", "generator", "output_type"} <= set(call_parameters(sibling.target))
    assert not given & {"image", "video"} & set(call_parameters(sibling.source))
    assert sibling_class(sibling.target, sibling.task, {}) == sibling.target


COGVIDEOX_1_5 = {"transformer": {"patch_size_t": 2}}


@pytest.mark.parametrize(
    ("class_name", "task", "configs", "found"),
    [
        ("WanPipeline", "image_to_video", TI2V, "WanImageToVideoPipeline"),
        ("WanPipeline", "image_to_video", {}, None),
        ("WanPipeline", "video_to_video", {}, "WanVideoToVideoPipeline"),
        ("WanPipeline", "video_to_video", TI2V, None),
        ("WanPipeline", "video_to_video", A14B, None),
        ("CogVideoXPipeline", "video_to_video", {}, "CogVideoXVideoToVideoPipeline"),
        ("CogVideoXPipeline", "video_to_video", COGVIDEOX_1_5, "CogVideoXVideoToVideoPipeline"),
        ("LTXPipeline", "video_to_video", {}, None),
        ("FluxPipeline", "image_to_image", {}, "FluxImg2ImgPipeline"),
        ("FluxPipeline", "image_to_video", {}, None),
    ],
)
def test_the_configs_say_which_weights_do_another_task(
    class_name: str, task: Any, configs: Any, found: str | None
) -> None:
    assert find_sibling(class_name, task, configs) == found
    if found is None:
        with pytest.raises(RecipeError) as caught:
            sibling_class(class_name, task, configs)
        assert class_name in caught.value.problem and caught.value.fix
    elif configs is COGVIDEOX_1_5:
        with pytest.raises(RecipeError, match="only takes 8k frames for it"):
            sibling_class(class_name, task, configs, redraws=True)


@pytest.mark.parametrize(
    ("recipe", "class_name", "configs", "found"),
    [
        ("generate", "HunyuanVideoPipeline", {}, "HunyuanVideoPipeline"),
        ("image_to_video", "LTXPipeline", {}, "LTXImageToVideoPipeline"),
        ("image_to_video", "StableVideoDiffusionPipeline", {}, "StableVideoDiffusionPipeline"),
        ("image_to_video", "HunyuanVideoImageToVideoPipeline", {}, "HunyuanVideoImageToVideoPipeline"),
        ("video_to_video", "AnimateDiffPipeline", {}, "AnimateDiffVideoToVideoPipeline"),
        ("video_to_video", "WanVACEPipeline", {}, "WanVACEPipeline"),
        ("refine", "WanPipeline", {}, "WanPipeline"),
        ("refine", "StableDiffusionXLPipeline", {}, "StableDiffusionXLPipeline"),
        ("extend", "MochiPipeline", {}, "MochiPipeline"),
    ],
)
def test_a_recipe_names_the_class_whose_arguments_its_rows_give(
    recipe: str, class_name: str, configs: Any, found: str
) -> None:
    assert BUILT_IN[recipe].pipeline(class_name, configs) == found


@pytest.mark.parametrize(
    ("recipe", "class_name", "configs", "fix"),
    [
        ("image_to_video", "WanPipeline", {}, "Wan 2.2 TI2V"),
        ("image_to_video", "StableDiffusionPipeline", {}, "LTXPipeline"),
        ("image_to_video", "StableDiffusionImg2ImgPipeline", {}, "LTXPipeline"),
        ("video_to_video", "LTXPipeline", {}, "CogVideoXPipeline"),
        ("refine", "WanPipeline", A14B, "Wan 2.1"),
        ("refine", "HunyuanVideoPipeline", {}, "AnimateDiffPipeline"),
        ("refine", "LTXConditionPipeline", {}, "AnimateDiffPipeline"),
        ("extend", "FluxPipeline", {}, "a video model"),
    ],
)
def test_a_model_that_a_recipe_cannot_use_is_refused_with_those_it_can(
    recipe: str, class_name: str, configs: Any, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        BUILT_IN[recipe].pipeline(class_name, configs)
    assert fix in caught.value.fix


def test_every_preset_of_clips_that_start_from_an_image_has_a_class_for_it() -> None:
    for preset in PRESETS:
        configs = {**preset.match, "index": {"expand_timesteps": preset.name == "wan2.2-ti2v-5b"}}
        if preset.fps and "image" in preset.inputs:
            takes = [name for name in preset.pipelines if "image" in call_parameters(name)]
            assert takes or [conditioned_class("image", name, configs) for name in preset.pipelines]


def test_a_pipeline_is_its_own_sibling_or_has_a_scheduler_that_the_sibling_can_use() -> None:
    pipe = type("FluxPipeline", (), {"scheduler": SimpleNamespace()})()
    with pytest.raises(RecipeError, match="FluxImg2ImgPipeline cannot use the scheduler SimpleNamespace"):
        as_sibling(pipe, "FluxImg2ImgPipeline")
    assert as_sibling(pipe, "FluxPipeline") is pipe
