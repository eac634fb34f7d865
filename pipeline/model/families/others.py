"""Families of which some rules are known from diffusers' code, and of which no model has a preset."""

from __future__ import annotations

from framefleet.pipeline.model.families.cogvideox import COGVIDEOX_SCHEDULERS
from framefleet.pipeline.model.families.family import Family, Sibling


def _redrawn(name: str, *, noising: str | None = "scale_noise") -> tuple[Sibling]:
    """Return the sibling of an image pipeline that renders over images."""
    source, target = f"{name}Pipeline", f"{name}Img2ImgPipeline"
    return (Sibling(task="image_to_image", source=source, target=target, noising=noising),)


WITHOUT_PRESETS = (
    Family(prefix="ChronoEdit", fps=16, sends=()),
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
    Family(prefix="Kolors", siblings=_redrawn("Kolors", noising=None)),
    Family(prefix="Latte", default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(prefix="Lucy", fps=24, sends=()),
    Family(prefix="MotifVideo", fps=24),
    Family(prefix="TextToVideo", default_size="config", frame_factor=0, fps=8),
    Family(prefix="VisualCloze", reads_guidance_once=True),
)
