"""All families, and the one that a pipeline's class name and configs belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from framefleet.pipeline.model.families.cogvideox import COGVIDEOX, COGVIDEOX_SCHEDULERS
from framefleet.pipeline.model.families.crafter import DYNAMICRAFTER, VIDEOCRAFTER
from framefleet.pipeline.model.families.family import Family, Preset, redrawn
from framefleet.pipeline.model.families.flux import FLUX, FLUX2, FLUX2_KLEIN
from framefleet.pipeline.model.families.hunyuan import HUNYUAN_IMAGE, HUNYUANVIDEO, HUNYUANVIDEO_1_5
from framefleet.pipeline.model.families.image_transformers import (
    AURA_FLOW,
    CHROMA,
    ERNIE_IMAGE,
    GLM_IMAGE,
    HIDREAM,
    KREA2,
    LUMINA2,
    PIXART,
    Z_IMAGE,
)
from framefleet.pipeline.model.families.kandinsky import KANDINSKY, KANDINSKY_6
from framefleet.pipeline.model.families.ltx import LTX, LTX2
from framefleet.pipeline.model.families.opensora import OPENSORA
from framefleet.pipeline.model.families.qwen_image import QWEN_IMAGE, QWEN_IMAGE_2_1
from framefleet.pipeline.model.families.sana import SANA, SANA_IMAGE_TO_VIDEO, SANA_SPRINT, SANA_VIDEO
from framefleet.pipeline.model.families.skyreels import SKYREELS
from framefleet.pipeline.model.families.stable_diffusion import (
    ANIMATEDIFF,
    LATENT_CONSISTENCY,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_VIDEO_DIFFUSION,
)
from framefleet.pipeline.model.families.video_transformers import ALLEGRO, ANYFLOW, COSMOS3, HELIOS, MOCHI
from framefleet.pipeline.model.families.wan import WAN
from framefleet.pipeline.model.specs.dtypes import DTypeName

FROM_IMAGE_TO_IMAGE = "DynamiCrafter, Open-Sora, or a Wan folder for first and last frames"
WITH_LAST_IMAGE = "a first-and-last-frame model, as Wan2.1-FLF2V"
IMAGES_FROM_TEXT = "black-forest-labs/FLUX.1-dev"
VIDEOS_FROM_TEXT = "a VideoCrafter2 folder"
ORIGINALS = "the original checkpoint of VideoCrafter or DynamiCrafter, or the folder of Open-Sora v2"

# diffusers turns their frames to NumPy's as they are, which has no bf16.
_FP32: dict[str, DTypeName] = {"default": "fp32"}

WITHOUT_PRESETS = (
    Family(prefix="Amused", default_size="config", schedulers=("AmusedScheduler",), sends=()),
    Family(prefix="ChronoEdit", fps=16, sends=()),
    Family(prefix="ConsistencyModel", dtypes=_FP32),
    Family(prefix="DDIM", dtypes=_FP32),
    Family(prefix="DDPM", dtypes=_FP32),
    # Resizes maps with antialiasing, which CPUs do not do in bf16.
    Family(prefix="Marigold", dtypes=_FP32),
    Family(prefix="EasyAnimate", fps=8),
    Family(
        prefix="ConsisID",
        default_size="config",
        frame_factor=2,
        fps=8,
        joins_prompts=True,
        schedulers=COGVIDEOX_SCHEDULERS,
    ),
    Family(prefix="HunyuanSkyreels", fps=24, sends=("sigmas",)),
    Family(prefix="Ideogram4", reads_guidance_once=True),
    Family(prefix="Kolors", siblings=redrawn("Kolors", noising=None)),
    Family(prefix="LDM", dtypes=_FP32),
    Family(prefix="Latte", default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(prefix="Lucy", fps=24, sends=(), dtypes={"default": "bf16", "vae": "fp32"}),
    Family(prefix="MotifVideo", fps=24),
    Family(prefix="ScoreSdeVe", dtypes=_FP32),
    Family(prefix="TextToVideo", default_size="config", frame_factor=0, fps=8),
    Family(prefix="VisualCloze", reads_guidance_once=True),
)


# Each is rendered by tests/models/test_families.py, and all by tests/periphery/models/test_conformance.py.
# Pages and messages list them in this order.
RENDERED = (
    WAN,
    COGVIDEOX,
    LTX,
    HUNYUANVIDEO,
    SKYREELS,
    KANDINSKY,
    SANA_VIDEO,
    HELIOS,
    MOCHI,
    OPENSORA,
    ANIMATEDIFF,
    STABLE_VIDEO_DIFFUSION,
    VIDEOCRAFTER,
    DYNAMICRAFTER,
    STABLE_DIFFUSION_3,
    FLUX,
    STABLE_DIFFUSION,
)
# Rendered by tests/periphery/models/test_conformance.py, as every class with a tiny pipeline is.
_FURTHER = (
    LTX2,
    HUNYUANVIDEO_1_5,
    KANDINSKY_6,
    COSMOS3,
    ALLEGRO,
    ANYFLOW,
    SANA_IMAGE_TO_VIDEO,
    FLUX2,
    FLUX2_KLEIN,
    QWEN_IMAGE,
    QWEN_IMAGE_2_1,
    Z_IMAGE,
    KREA2,
    CHROMA,
    SANA,
    SANA_SPRINT,
    HUNYUAN_IMAGE,
    HIDREAM,
    GLM_IMAGE,
    ERNIE_IMAGE,
    LUMINA2,
    PIXART,
    AURA_FLOW,
    LATENT_CONSISTENCY,
)
FAMILIES = (*RENDERED, *_FURTHER, *WITHOUT_PRESETS)
PRESETS = tuple(replace(one, fps=one.fps or family.fps) for family in FAMILIES for one in family.presets)
_NONE = Family(prefix="")  # the factors of its autoencoder and denoiser, no guess at its default size


def family_of(class_name: str) -> Family:
    """Return the family with the longest prefix of `class_name`, or the one of a class that nobody listed."""
    matches = [family for family in FAMILIES if class_name.startswith(family.prefix)]
    return max(matches, key=lambda family: len(family.prefix), default=_NONE)


def preset_of(class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> Preset | None:
    """Return the preset of a model, or None. configs: by component, and model_index.json as "index"."""
    return next((preset for preset in PRESETS if preset.fits(class_name, configs)), None)
