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
    Family(prefix="Allegro", default_size="config", frame_factor=0, fps=15, joins_prompts=True),
    Family(prefix="Bria"),
    Family(prefix="BriaFibo"),
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
    Family(prefix="Kolors", siblings=_redrawn("Kolors", noising=None)),
    Family(prefix="LTX2", default_size="config", fps=24, siblings=_started("LTX2")),
    Family(prefix="Latte", default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(
        prefix="Mochi",
        default_size=(480, 848),
        fps=30,
        joins_prompts=True,
        # It renders with inverted sigmas, which no other scheduler has.
        schedulers=("FlowMatchEulerDiscreteScheduler",),
    ),
    Family(prefix="OvisImage"),
    Family(
        prefix="SkyReelsV2",
        fps=24,
        sends=(),
        siblings=_started("SkyReelsV2DiffusionForcing"),
    ),
    Family(prefix="TextToVideo", default_size="config", frame_factor=0, fps=8),
    Family(prefix="VisualCloze", reads_guidance_once=True),
)
