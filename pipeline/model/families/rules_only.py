"""Families of which some rules are known from diffusers' code, and of which no model has a preset."""

from __future__ import annotations

from framefleet.pipeline.model.families.cogvideox import COGVIDEOX_SCHEDULERS
from framefleet.pipeline.model.families.family import Family, redrawn
from framefleet.pipeline.model.specs.dtypes import DTypeName

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
