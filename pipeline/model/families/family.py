"""What is known about a family of models and its released models, as plain values.

Code of a family (its rules for rows, the conversion of its checkpoints) is named as "module:function", and
imported only when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import framefleet
from framefleet.pipeline.model.specs.dtypes import WITHOUT_PRESET, DTypeName
from framefleet.pipeline.model.specs.signature import Scalar

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}

SiblingTask = Literal["image_to_video", "video_to_video", "image_to_image"]
# How a denoiser gets a video in training; each is a function in plugins/train/denoiser/objective.py.
LatentLayout = Literal[
    "scaled",
    "normalised",
    "normalised_in_tokens",
    "frames_first",
    "in_tokens",
    "frame_by_frame",
    "image",
    "image_normalised",
    "image_shifted",
    "image_in_tokens",
]
_Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One released model, recognised by its configs. The first preset that fits counts, so narrower ones
    come first.

    From the signatures and documentation of diffusers 0.42, model cards, and where named the authors' code.
    """

    name: str  # in `framefleet model info` and `list`
    pipelines: tuple[str, ...]  # its possible classes in the index
    # Values in the components' configs, and ("index") in model_index.json, that distinguish it from others.
    match: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Scalar]  # native arguments of the call, used if neither row nor job sets them
    # In millions, counted on the libraries' classes built from the published configs.
    parameters: Mapping[str, int]
    license: str
    models: tuple[str, ...] = ()  # on the hub
    folder: str = ""  # in the package, for a model that comes with it
    inputs: tuple[str, ...] = ("text",)  # what a clip starts from
    # The rate of the training videos, by default the family's; `registry.PRESETS` always have it. None for
    # images.
    fps: float | None = None
    dtype: DTypeName = "bf16"  # for `dtype: auto` on a GPU
    dtypes: Mapping[str, DTypeName] = field(default_factory=dict)  # of components that differ
    # From the hub's page, or the sum of its files; None if neither could be checked.
    download_gb: float | None = None
    scheduler: str = ""  # in its folder, if that could be checked
    note: str = ""  # what else to know

    def fits(self, class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether a model with this class and configs is this one. configs: with `index`."""
        return class_name in self.pipelines and all(
            configs.get(component, {}).get(key) == value
            for component, values in self.match.items()
            for key, value in values.items()
        )

    @property
    def place(self) -> str:
        """The hub model, or the folder of one that comes with the package; "" if it has neither."""
        if self.models:
            return self.models[0]
        return str(Path(framefleet.__file__).parent / self.folder) if self.folder else ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Native height and width; None if they follow the picture that a clip starts from."""
        sides = self.arguments.get("height"), self.arguments.get("width")
        return (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None

    @property
    def auto_dtypes(self) -> dict[str, DTypeName]:
        """The dtypes for `dtype: auto` on a GPU, by component, with a default."""
        return {"default": self.dtype, **self.dtypes}

    def weights_gb(self) -> dict[str, float]:
        """Return the size of each component's weights on a GPU with `dtype: auto`."""
        return {
            component: millions * BYTES[self.dtypes.get(component, self.dtype)] / 1000
            for component, millions in self.parameters.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """`target` does `task` with the components of `source`."""

    task: SiblingTask
    source: str
    target: str
    # Config values, as "component.key", that must be set (True) or must not (False).
    when: Mapping[str, bool] = field(default_factory=dict)
    # The same, for clips that `source` itself rendered, because it must take their lengths.
    redraws_when: Mapping[str, bool] = field(default_factory=dict)
    otherwise: tuple[str, str] = ("", "")  # why a model with other values cannot do it, and the fix
    noising: str | None = None  # the method that it needs of the scheduler

    def fits(self, configs: _Configs, *, redraws: bool) -> bool:
        conditions = [*self.when.items(), *(self.redraws_when.items() if redraws else ())]
        return all(bool(config_value(configs, path)) is wanted for path, wanted in conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInput:
    layout: LatentLayout
    # Arguments of the unconditional call, besides an empty prompt.
    unprompted: Mapping[str, Any] = field(default_factory=dict)
    # "module:function" that takes a row's own arguments and its frames, and returns the pipeline's arguments.
    # None: the first frame as `image`, if the call takes one.
    inputs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Facts about all pipelines whose class name starts with `prefix`; configs decide about the rest.

    Read from `check_inputs`, `prepare_latents` and `__call__` of each pipeline in diffusers 0.42.
    """

    prefix: str
    # Height and width must be multiples of this, in addition to what the pipeline's source says.
    size_base: int = 1
    # The size of a call without one: (height, width) in pixels, or one number in latent pixels; "config": the
    # size in the denoiser's config; None: unknown.
    default_size: tuple[int, int] | int | Literal["config"] | None = None
    # The frame step is this times the autoencoder's temporal factor; 0 takes any frame count.
    frame_factor: int = 1
    # By class: it takes whole frame steps, without a separate first frame, if this "component.key" is set.
    whole_when: Mapping[str, str] = field(default_factory=dict)
    max_frames: int | None = None  # of the longest training clips, if it cannot render longer ones
    # If the first frame is not packed separately, images leave fewer frames for a clip; `row_rules` check how
    # many there are.
    drops_repeats: bool = False
    fps: float | None = None  # the rate of the training videos; None for images
    # The rate of models with the config value "component.key" set.
    fps_when: Mapping[str, float] = field(default_factory=dict)
    # The call's own `fps` sets how much motion there is, not how fast the clip plays.
    fps_is_motion: bool = False
    # For a model whose text has fixed positions, if its config does not say how many.
    text_positions: int | None = None
    # `guidance_scale` is an input of the network, or is read only before the first step, in pipelines without
    # `true_cfg_scale`.
    reads_guidance_once: bool = False
    # Both prompts are in one forward, of (B, C, F, H, W): FasterCache can only skip the unconditional half of
    # such forwards.
    joins_prompts: bool = False
    # What the pipeline passes to `scheduler.set_timesteps` besides the number of steps. The default is a
    # careful guess: what most flow-matching pipelines pass.
    sends: tuple[str, ...] = ("sigmas", "mu")
    # The only classes that its loop works with; empty: any class of the right kind.
    schedulers: tuple[str, ...] = ()
    # For `dtype: auto` on a GPU without a preset: by component, others as `default`.
    dtypes: Mapping[str, DTypeName] = field(default_factory=lambda: WITHOUT_PRESET)
    license: str = ""  # of all published weights for its classes, if they have the same
    is_guarded: bool = False  # its license requires NVIDIA's guardrail: model/guardrail.py
    siblings: tuple[Sibling, ...] = ()
    training: Mapping[str, TrainingInput] = field(default_factory=dict)  # by the pipeline's class
    # Classes that diffusers lacks, and their modules.
    pipelines: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, str] = field(default_factory=dict)  # the same for components
    # "module:function" with rules for combinations of a row's arguments.
    row_rules: str | None = None
    # "module:function" that takes a checkpoint of its authors, and returns how to convert it, or None.
    converter: str | None = None


def config_value(configs: _Configs, path: str) -> Any:
    """Return the value at "component.key", or None."""
    component, _, key = path.partition(".")
    return configs.get(component, {}).get(key)


def redrawn(name: str, *, noising: str | None = "scale_noise") -> tuple[Sibling]:
    """Return the sibling of an image pipeline that renders over images."""
    source, target = f"{name}Pipeline", f"{name}Img2ImgPipeline"
    return (Sibling(task="image_to_image", source=source, target=target, noising=noising),)


def animated(name: str) -> tuple[Sibling]:
    """Return the sibling of a video pipeline that starts from an image."""
    source, target = f"{name}Pipeline", f"{name}ImageToVideoPipeline"
    return (Sibling(task="image_to_video", source=source, target=target),)


def trained(layout: LatentLayout, *pipelines: str) -> dict[str, TrainingInput]:
    """Return the training inputs of these pipelines."""
    return {name: TrainingInput(layout=layout) for name in pipelines}
