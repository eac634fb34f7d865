"""The models of VideoCrafter and DynamiCrafter that were released, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.models.crafter.pipeline_base import CrafterPipeline
from framefleet.pipeline.models.crafter.pipeline_dynamicrafter import DynamiCrafterPipeline
from framefleet.pipeline.models.crafter.pipeline_videocrafter import (
    VideoCrafterImageToVideoPipeline,
    VideoCrafterPipeline,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One released model.

    size: (height, width) in pixels. traits: what tells its denoiser from others, as values of its config.
    default_fps: of a call without one, from the authors' scripts; None where it is told none.
    scheduler: arguments of VideoCrafterDDIMScheduler.
    """

    name: str
    pipeline: type[CrafterPipeline]
    size: tuple[int, int]
    traits: Mapping[str, Any]
    default_fps: int | None
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latent_scale(self) -> float:
        return float(self.scheduler.get("latent_scale", 1.0))


def _traits(**given: bool | int) -> dict[str, Any]:
    """Channels of the input; whether it has fps, temporal convolutions, positions, image attention, gate."""
    return {
        "channels": 4,
        "fps": True,
        "convs": True,
        "positions": False,
        "image": False,
        "gate": False,
    } | given


def _velocity(latent_scale: float) -> dict[str, Any]:
    return {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "latent_scale": latent_scale,
        "dynamic_rescale": True,
    }


_POSITIONS = {"convs": False, "positions": True}
_CONCAT = {"channels": 8, "image": True}

VARIANTS = (
    Variant(
        name="videocrafter2-t2v-512",
        pipeline=VideoCrafterPipeline,
        size=(320, 512),
        traits=_traits(),
        default_fps=28,
        scheduler={"latent_scale": 0.7},
    ),
    Variant(
        name="videocrafter1-t2v-1024",
        pipeline=VideoCrafterPipeline,
        size=(576, 1024),
        traits=_traits(**_POSITIONS),
        default_fps=28,
        scheduler={"latent_scale": 0.3},
    ),
    Variant(
        name="videocrafter1-t2v-512",
        pipeline=VideoCrafterPipeline,
        size=(320, 512),
        traits=_traits(**_POSITIONS, fps=False),
        default_fps=None,
    ),
    Variant(
        name="videocrafter1-i2v-512",
        pipeline=VideoCrafterImageToVideoPipeline,
        size=(320, 512),
        traits=_traits(image=True),
        default_fps=8,
        scheduler={"latent_scale": 0.7},
    ),
    Variant(
        name="dynamicrafter-256",
        pipeline=DynamiCrafterPipeline,
        size=(256, 256),
        traits=_traits(**_CONCAT, gate=True),
        default_fps=3,
    ),
    Variant(
        name="dynamicrafter-512",
        pipeline=DynamiCrafterPipeline,
        size=(320, 512),
        traits=_traits(**_CONCAT),
        default_fps=24,
        scheduler=_velocity(0.7),
    ),
    Variant(
        name="dynamicrafter-512-interp",
        pipeline=DynamiCrafterPipeline,
        size=(320, 512),
        traits=_traits(**_CONCAT),
        default_fps=5,
        scheduler=_velocity(0.7),
    ),
    Variant(
        name="dynamicrafter-1024",
        pipeline=DynamiCrafterPipeline,
        size=(576, 1024),
        traits=_traits(**_CONCAT),
        default_fps=10,
        scheduler=_velocity(0.3),
    ),
)


def traits_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the traits of a denoiser's config."""
    return {
        "channels": config["in_channels"],
        "fps": config["default_fps"] is not None,
        "convs": config["use_temporal_conv"],
        "positions": config["max_relative_position"] is not None,
        "image": config["image_cross_attention"],
        "gate": config["learnable_image_scale"],
    }
