"""All families, and what a pipeline's class name and configs find among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.model.families.allegro import ALLEGRO
from framefleet.pipeline.model.families.animatediff import ANIMATEDIFF
from framefleet.pipeline.model.families.anyflow import ANYFLOW
from framefleet.pipeline.model.families.aura_flow import AURA_FLOW
from framefleet.pipeline.model.families.chroma import CHROMA
from framefleet.pipeline.model.families.cogvideox import COGVIDEOX
from framefleet.pipeline.model.families.cosmos3 import COSMOS3
from framefleet.pipeline.model.families.crafter import DYNAMICRAFTER, VIDEOCRAFTER
from framefleet.pipeline.model.families.ernie_image import ERNIE_IMAGE
from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.flux import FLUX
from framefleet.pipeline.model.families.flux2 import FLUX2, FLUX2_KLEIN
from framefleet.pipeline.model.families.glm_image import GLM_IMAGE
from framefleet.pipeline.model.families.helios import HELIOS
from framefleet.pipeline.model.families.hidream import HIDREAM
from framefleet.pipeline.model.families.hunyuan import HUNYUANVIDEO
from framefleet.pipeline.model.families.hunyuan_1_5 import HUNYUANVIDEO_1_5
from framefleet.pipeline.model.families.hunyuan_image import HUNYUAN_IMAGE
from framefleet.pipeline.model.families.kandinsky import KANDINSKY
from framefleet.pipeline.model.families.kandinsky_6 import KANDINSKY_6
from framefleet.pipeline.model.families.krea import KREA2
from framefleet.pipeline.model.families.latent_consistency import LATENT_CONSISTENCY
from framefleet.pipeline.model.families.ltx import LTX
from framefleet.pipeline.model.families.ltx2 import LTX2
from framefleet.pipeline.model.families.lumina import LUMINA2
from framefleet.pipeline.model.families.mochi import MOCHI
from framefleet.pipeline.model.families.opensora import OPENSORA
from framefleet.pipeline.model.families.others import WITHOUT_PRESETS
from framefleet.pipeline.model.families.pixart import PIXART
from framefleet.pipeline.model.families.preset import Preset
from framefleet.pipeline.model.families.qwen_image import QWEN_IMAGE, QWEN_IMAGE_2_1
from framefleet.pipeline.model.families.sana import SANA, SANA_SPRINT
from framefleet.pipeline.model.families.sana_video import SANA_IMAGE_TO_VIDEO, SANA_VIDEO
from framefleet.pipeline.model.families.skyreels import SKYREELS
from framefleet.pipeline.model.families.stable_diffusion import STABLE_DIFFUSION
from framefleet.pipeline.model.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from framefleet.pipeline.model.families.stable_video_diffusion import STABLE_VIDEO_DIFFUSION
from framefleet.pipeline.model.families.wan import WAN
from framefleet.pipeline.model.families.z_image import Z_IMAGE

# Each is rendered by tests/models/test_families.py, and all by tests/models/test_conformance.py. Pages and
# messages list them in this order.
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
# Rendered by tests/models/test_conformance.py, as every class with a tiny pipeline is.
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
PRESETS = tuple(preset for family in FAMILIES for preset in family.presets)
_NONE = Family(prefix="")  # the factors of its autoencoder and denoiser, no guess at its default size


def family_of(class_name: str) -> Family:
    """Return the family with the longest prefix of `class_name`, or the one of a class that nobody listed."""
    matches = [family for family in FAMILIES if class_name.startswith(family.prefix)]
    return max(matches, key=lambda family: len(family.prefix), default=_NONE)


def preset_of(class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> Preset | None:
    """Return the preset of a model, or None. configs: by component, and model_index.json as "index"."""
    return next((preset for preset in PRESETS if preset.fits(class_name, configs)), None)
