"""The recipes: what each needs, makes and checks, and which pipelines it calls."""

from __future__ import annotations

from functools import partial

from framefleet.pipeline.recipes.recipe import recipe_from
from framefleet.plugins.recipes.conditioning import (
    check_refinable,
    check_refine,
    conditioned_class,
    image_to_video,
    refine,
    refining_class,
    text_to_image_to_video,
    video_to_video,
)
from framefleet.plugins.recipes.extend import (
    check_extend,
    check_extendable,
    check_film,
    extend,
    following_class,
)
from framefleet.plugins.recipes.keyframes import (
    check_keyframes,
    keyframe_class,
    keyframes,
    text_to_keyframes_to_video,
)

_ON_IMAGE = partial(conditioned_class, "image")
_ON_VIDEO = partial(conditioned_class, "video")
RECIPES = (
    recipe_from(image_to_video, "image", pipeline=_ON_IMAGE),
    recipe_from(video_to_video, "video", pipeline=_ON_VIDEO, cut_to="num_frames"),
    recipe_from(
        text_to_image_to_video, "image_model", "height", "width", makes=("image",), pipeline=_ON_IMAGE
    ),
    recipe_from(refine, "height", "width", check=check_refine, pipeline=check_refinable, then=refining_class),
    recipe_from(
        extend,
        "duration_s",
        check=check_extend,
        check_rate=check_film,
        pipeline=check_extendable,
        then=following_class,
    ),
    recipe_from(
        keyframes, "duration_s", check=check_keyframes, check_rate=check_film, pipeline=keyframe_class
    ),
    recipe_from(
        text_to_keyframes_to_video,
        "duration_s",
        "keyframe_model",
        makes=("image", "last_image"),
        check=check_keyframes,
        check_rate=check_film,
        pipeline=keyframe_class,
    ),
)
