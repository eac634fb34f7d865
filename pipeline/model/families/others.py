"""Families of which some rules are known from diffusers' code, and of which no model has a preset."""

from __future__ import annotations

from dataclasses import replace

from framefleet.pipeline.model.families.cogvideox import COGVIDEOX_SCHEDULERS
from framefleet.pipeline.model.families.family import Family, Sibling


def _redrawn(name: str, *, noising: str | None = "scale_noise") -> tuple[Sibling]:
    """Return the sibling of an image pipeline that renders over images."""
    source, target = f"{name}Pipeline", f"{name}Img2ImgPipeline"
    return (Sibling(task="image_to_image", source=source, target=target, noising=noising),)


_FLUX2 = Family(prefix="Flux2", packing=2, default_size=128, reads_guidance_once=True, sends=("mu",))

WITHOUT_PRESETS = (
    Family(prefix="ChronoEdit", size_base=16, fps=16, sends=()),
    Family(prefix="EasyAnimate", size_base=16, vae_factors=(8, 4), fps=8),
    Family(prefix="Bria", max_text=512),
    Family(prefix="BriaFibo", max_text=3000),
    Family(prefix="Chroma", packing=2, default_size=128, max_text=512, siblings=_redrawn("Chroma")),
    Family(
        prefix="ConsisID",
        size_base=8,
        default_size="config",
        frame_factor=2,
        fps=8,
        joins_prompts=True,
        schedulers=COGVIDEOX_SCHEDULERS,
    ),
    _FLUX2,
    replace(_FLUX2, prefix="Flux2Klein", reads_guidance_once=False),
    Family(prefix="HunyuanSkyreels", size_base=16, fps=24, sends=("sigmas",)),
    Family(prefix="Ideogram4", reads_guidance_once=True),
    Family(prefix="Kandinsky6", size_base=16, fps=24, sends=()),
    Family(prefix="Kolors", max_text=256, siblings=_redrawn("Kolors", noising=None)),
    Family(prefix="LatentConsistencyModel", reads_guidance_once=True),
    Family(prefix="Latte", size_base=8, default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(prefix="Lumina2", max_text=512),
    Family(prefix="Lucy", size_base=16, fps=24, sends=()),
    Family(prefix="MotifVideo", size_base=16, fps=24),
    Family(prefix="OvisImage", max_text=256),
    Family(prefix="QwenImage", packing=2, default_size=128, max_text=1024, siblings=_redrawn("QwenImage")),
    Family(prefix="SanaSprint", reads_guidance_once=True),
    Family(prefix="TextToVideo", size_base=8, default_size="config", frame_factor=0, fps=8),
    Family(prefix="VisualCloze", reads_guidance_once=True),
    Family(prefix="ZImage", siblings=_redrawn("ZImage")),
)
