"""All families of models and their presets, found by a pipeline's class name and configs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from framefleet.pipeline.model.families.family import (
    Family,
    Preset,
    Sibling,
    TrainingInput,
    animated,
    redrawn,
    trained,
)
from framefleet.pipeline.plugin import values_of_plugins

# Messages list them in this order, also below.
IMAGE_FAMILIES = (
    Family(
        prefix="StableDiffusion3",
        default_size="config",
        sends=(),
        siblings=redrawn("StableDiffusion3"),
        training=trained("image_shifted", "StableDiffusion3Pipeline"),
    ),
    Family(
        prefix="Flux",
        default_size=128,
        reads_guidance_once=True,
        sends=("mu",),
        siblings=redrawn("Flux"),
        training=trained("image_in_tokens", "FluxPipeline"),
    ),
    Family(
        prefix="StableDiffusion",
        default_size="config",
        siblings=(*redrawn("StableDiffusion", noising=None), *redrawn("StableDiffusionXL", noising=None)),
        training={
            "StableDiffusionPipeline": TrainingInput(layout="image"),
            # With guidance, the first of the two calls is the unconditional one: it may be zeros.
            "StableDiffusionXLPipeline": TrainingInput(
                layout="image_normalised", unprompted={"guidance_scale": 2.0}
            ),
        },
    ),
    Family(prefix="Flux2", default_size=128, reads_guidance_once=True, sends=("mu",)),
    Family(prefix="Flux2Klein", default_size=128, sends=("mu",)),
    Family(prefix="QwenImage", default_size=128, siblings=redrawn("QwenImage")),
    Family(prefix="QwenImage21", license="qwen-research"),
    Family(prefix="ZImage", siblings=redrawn("ZImage")),
    Family(prefix="Krea2", license="krea-2-community"),
    Family(prefix="Chroma", default_size=128, siblings=redrawn("Chroma")),
    Family(prefix="SanaPipeline"),
    # Its steps are angles between picture and noise.
    Family(prefix="SanaSprint", reads_guidance_once=True, schedulers=("SCMScheduler",)),
    Family(prefix="HunyuanImage", sends=("sigmas",)),
    Family(prefix="HiDream"),
    Family(prefix="GlmImage", default_size=128),
    Family(prefix="ErnieImage"),
    Family(prefix="Lumina2"),
    Family(prefix="PixArt"),
    Family(prefix="AuraFlow"),
    # Based on Stable Diffusion 1.5.
    Family(prefix="LatentConsistencyModel", default_size="config", reads_guidance_once=True),
    # Without presets.
    Family(prefix="Amused", default_size="config", schedulers=("AmusedScheduler",), sends=()),
    Family(prefix="Ideogram4", reads_guidance_once=True, license="ideogram-4-non-commercial"),
    *(Family(prefix=f"Kandinsky5{task}", sends=()) for task in ("T2I", "I2I")),  # others make videos
    Family(prefix="Kolors", siblings=redrawn("Kolors", noising=None)),
    Family(prefix="VisualCloze", reads_guidance_once=True),
    # diffusers converts their frames directly to NumPy, which has no bf16.
    *(
        Family(prefix=prefix, dtypes={"default": "fp32"})
        for prefix in ("ConsistencyModel", "DDIM", "DDPM", "KarrasVe", "LDM", "PNDM", "RePaint", "ScoreSdeVe")
    ),
    # It resizes maps with antialiasing, which CPUs cannot do in bf16.
    Family(prefix="Marigold", dtypes={"default": "fp32"}),
)

_WAN_FROM_IMAGES = "use a Wan 2.2 TI2V model, or an image-to-video folder"
_COGVIDEOX_SCHEDULERS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
_COSMOS2_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler",)  # the pipelines add to its config

VIDEO_FAMILIES = (
    Family(
        prefix="Wan",
        fps=16,
        fps_when={"index.expand_timesteps": 24.0},  # Wan 2.2 TI2V-5B
        sends=(),
        siblings=(
            Sibling(
                task="image_to_video",
                source="WanPipeline",
                target="WanImageToVideoPipeline",
                when={"index.expand_timesteps": True},
                otherwise=("its weights start from text only", _WAN_FROM_IMAGES),
            ),
            Sibling(
                task="video_to_video",
                source="WanPipeline",
                target="WanVideoToVideoPipeline",
                when={"index.expand_timesteps": False, "index.boundary_ratio": False},
                otherwise=(
                    "diffusers' WanVideoToVideoPipeline supports neither two transformers nor the "
                    "autoencoder of Wan 2.2 TI2V",
                    "use a Wan 2.1 text-to-video model",
                ),
            ),
        ),
        training=trained("normalised", "WanPipeline", "WanImageToVideoPipeline"),
    ),
    Family(
        prefix="CogVideoX",
        default_size="config",
        # It decodes two latent frames at a time: only an odd number of them (8k + 1 frames) stays complete.
        frame_factor=2,
        # CogVideoX 1.5 redraws only videos whose latent frames fill its patches of two, i.e. 8k frames.
        whole_when={"CogVideoXVideoToVideoPipeline": "transformer.patch_size_t"},
        fps=8,
        fps_when={"transformer.patch_size_t": 16.0},  # CogVideoX 1.5
        text_positions=226,  # CogVideoXTransformer3DModel's own default
        joins_prompts=True,
        schedulers=_COGVIDEOX_SCHEDULERS,
        siblings=(
            Sibling(
                task="video_to_video",
                source="CogVideoXPipeline",
                target="CogVideoXVideoToVideoPipeline",
                redraws_when={"transformer.patch_size_t": False},
                # It only takes even numbers of latent frames, i.e. 8k frames, and not the 8k + 1 of text to
                # video.
                otherwise=(
                    "diffusers' CogVideoXVideoToVideoPipeline only takes 8k frames for it",
                    "use CogVideoX 2B or 5B",
                ),
            ),
        ),
        training=trained("frames_first", "CogVideoXPipeline", "CogVideoXImageToVideoPipeline"),
    ),
    Family(
        prefix="LTX",
        fps=25,
        siblings=animated("LTX"),
        training=trained("normalised_in_tokens", "LTXPipeline", "LTXImageToVideoPipeline"),
    ),
    Family(
        prefix="HunyuanVideo",
        default_size="config",
        fps=24,
        sends=("sigmas",),
        training=trained("scaled", "HunyuanVideoPipeline"),
    ),
    Family(
        prefix="SkyReelsV2",  # also with diffusion forcing, which continues a video
        fps=24,
        dtypes={"default": "bf16", "vae": "fp32"},
        sends=(),
        siblings=animated("SkyReelsV2DiffusionForcing"),
    ),
    Family(prefix="Kandinsky5", fps=24, sends=()),
    Family(prefix="SanaVideo", fps=16, sends=()),
    Family(prefix="SanaWM", license="apache-2.0"),
    # It renders in chunks that are decoded to 33 frames each, and cuts the result to 4k + 1: up to 129 frames
    # that is 32k + 1. Longer clips have the requested length, or up to four frames more.
    Family(prefix="Helios", frame_factor=8, fps=24),
    Family(
        prefix="Mochi",
        default_size=(480, 848),
        fps=30,
        joins_prompts=True,
        # It renders with inverted sigmas, which no other scheduler has.
        schedulers=("FlowMatchEulerDiscreteScheduler",),
    ),
    # A motion module for Stable Diffusion 1.5.
    Family(
        prefix="AnimateDiff",
        default_size="config",
        frame_factor=0,
        fps=8,
        siblings=(
            Sibling(
                task="video_to_video", source="AnimateDiffPipeline", target="AnimateDiffVideoToVideoPipeline"
            ),
        ),
        training=trained("frame_by_frame", "AnimateDiffPipeline"),
    ),
    Family(prefix="StableVideoDiffusion", frame_factor=0, fps=7),
    Family(prefix="LTX2", default_size="config", fps=24, license="ltx-2", siblings=animated("LTX2")),
    # Guided by an object in its folder.
    Family(prefix="HunyuanVideo15", size_base=16, fps=24, sends=("sigmas",)),
    Family(prefix="Kandinsky6", fps=24, sends=()),
    # One network, which reads the prompt itself, makes frames and, on request, sound.
    Family(prefix="Cosmos3", fps=24, sends=(), is_guarded=True),
    Family(prefix="Cosmos", fps=30, sends=(), schedulers=("EDMEulerScheduler",), is_guarded=True),
    Family(prefix="Cosmos2", fps=16, sends=("sigmas",), schedulers=_COSMOS2_SCHEDULERS, is_guarded=True),
    Family(prefix="Cosmos2TextToImage", sends=("sigmas",), schedulers=_COSMOS2_SCHEDULERS, is_guarded=True),
    Family(prefix="Cosmos2_5", fps=16, sends=(), is_guarded=True),
    Family(prefix="Cosmos2_5_Transfer", fps=30, sends=(), is_guarded=True),
    Family(prefix="Allegro", default_size="config", frame_factor=0, fps=15, joins_prompts=True),
    # Wan, distilled to few steps.
    Family(prefix="AnyFlow", fps=16, sends=()),
    Family(prefix="MiniMaxH3", license="minimax-h3"),
    Family(prefix="SanaImageToVideo", fps=16, sends=()),  # begins like SANA's pipelines for images
    # Without presets.
    Family(prefix="ChronoEdit", fps=16, sends=()),
    Family(prefix="EasyAnimate", fps=8),
    Family(
        prefix="ConsisID",
        default_size="config",
        frame_factor=2,
        fps=8,
        joins_prompts=True,
        schedulers=_COGVIDEOX_SCHEDULERS,
    ),
    Family(prefix="HunyuanSkyreels", fps=24, sends=("sigmas",)),
    Family(prefix="Latte", default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(prefix="Lucy", fps=24, sends=(), dtypes={"default": "bf16", "vae": "fp32"}),
    Family(prefix="MotifVideo", fps=24),
    Family(prefix="TextToVideo", default_size="config", frame_factor=0, fps=8),
)


FROM_IMAGE_TO_IMAGE = "DynamiCrafter, Open-Sora, or a Wan folder for first and last frames"
WITH_LAST_IMAGE = "a first-and-last-frame model, e.g. Wan2.1-FLF2V"
IMAGES_FROM_TEXT = "black-forest-labs/FLUX.1-dev"
VIDEOS_FROM_TEXT = "a VideoCrafter2 folder"
_NOT_INHERITED = ("note", "download_gb")
# Messages list them in this order.
FAMILIES: tuple[Family, ...] = (*VIDEO_FAMILIES, *IMAGE_FAMILIES, *values_of_plugins("families"))
_NONE = Family(prefix="")  # factors from autoencoder and denoiser, no default size


def _read_presets() -> Iterator[Preset]:
    """Yield the presets of presets.toml, with their families' frame rates."""
    written = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
    by_name = {preset["name"]: preset for presets in written.values() for preset in presets}
    rates = {family.prefix: family.fps for family in FAMILIES}

    def fields_of(preset: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a preset, with those that it inherits through `like`."""
        base = fields_of(by_name[preset["like"]]) if "like" in preset else {}
        own = {key: tuple(value) if isinstance(value, list) else value for key, value in preset.items()}
        own.pop("like", None)
        return {key: value for key, value in base.items() if key not in _NOT_INHERITED} | own

    for prefix, presets in written.items():
        for preset in presets:
            yield Preset(**{"fps": rates[prefix]} | fields_of(preset))


PRESETS = tuple(_read_presets())  # tried, and listed on pages, in this order


def family_of(class_name: str) -> Family:
    """Return the family with the longest prefix of `class_name`; a family without facts if none matches."""
    matches = [family for family in FAMILIES if class_name.startswith(family.prefix)]
    return max(matches, key=lambda family: len(family.prefix), default=_NONE)


def preset_of(class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> Preset | None:
    """Return the preset of a model, or None. configs: by component, and model_index.json as "index"."""
    return next((preset for preset in PRESETS if preset.fits(class_name, configs)), None)
