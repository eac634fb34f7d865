"""Families of which some rules are known from diffusers' code, but which no test renders.

One that gets a tiny pipeline (tests/tinies) moves to a file of its own, and into `known.RENDERED`.
"""

from __future__ import annotations

from framefleet.pipeline.model.families.cogvideox import COGVIDEOX_SCHEDULERS
from framefleet.pipeline.model.families.family import Family, Sibling


def _redrawn(name: str, *, noising: str | None = "scale_noise") -> tuple[Sibling]:
    """Return the sibling of an image pipeline that renders over images."""
    source, target = f"{name}Pipeline", f"{name}Img2ImgPipeline"
    return (Sibling(task="image_to_image", source=source, target=target, noising=noising),)


def _started(name: str) -> tuple[Sibling]:
    """Return the sibling of a video pipeline that starts from an image."""
    source, target = f"{name}Pipeline", f"{name}ImageToVideoPipeline"
    return (Sibling(task="image_to_video", source=source, target=target),)


WITHOUT_PRESETS = (
    Family(prefix="Allegro", size_base=8, default_size="config", frame_factor=0, fps=15, joins_prompts=True),
    Family(prefix="Bria", max_text=512),
    Family(prefix="BriaFibo", max_text=3000),
    Family(
        prefix="ConsisID",
        size_base=8,
        default_size="config",
        frame_factor=2,
        fps=8,
        joins_prompts=True,
        schedulers=COGVIDEOX_SCHEDULERS,
    ),
    Family(prefix="HunyuanSkyreels", size_base=16, fps=24, sends=("sigmas",)),
    Family(prefix="Ideogram4", reads_guidance_once=True),
    Family(prefix="Kolors", max_text=256, siblings=_redrawn("Kolors", noising=None)),
    Family(prefix="LTX2", size_base=32, default_size="config", fps=24, siblings=_started("LTX2")),
    Family(prefix="Latte", size_base=8, default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(
        prefix="Mochi",
        size_base=8,
        vae_factors=(8, 6),
        default_size=(480, 848),
        fps=30,
        joins_prompts=True,
        # It renders with inverted sigmas, which no other scheduler has.
        schedulers=("FlowMatchEulerDiscreteScheduler",),
    ),
    Family(prefix="OvisImage", max_text=256),
    Family(
        prefix="SkyReelsV2",
        size_base=16,
        fps=24,
        sends=(),
        siblings=_started("SkyReelsV2DiffusionForcing"),
    ),
    Family(prefix="TextToVideo", size_base=8, default_size="config", frame_factor=0, fps=8),
    Family(prefix="VisualCloze", reads_guidance_once=True),
)
