"""What is known of a family of models and of its released models: values, read by whoever checks or renders.

Code of a family (what rows of it may hold, how its checkpoints are converted) is named as "module:function",
and imported when it is needed.
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
    """One model, known by its configs. Narrower ones come first: the first that fits a folder counts.

    From the signatures and documentation of diffusers 0.42, model cards, and where named the authors' code.
    """

    name: str  # what `framefleet model info` and `list` call it
    pipelines: tuple[str, ...]  # classes that it is recognised with, as the index names them
    # Values in the components' configs, and ("index") in model_index.json, that distinguish it from others.
    match: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Scalar]  # native values of the call, used where neither row nor job gives one
    # In millions, counted on the libraries' classes built from the published configs.
    parameters: Mapping[str, int]
    license: str
    models: tuple[str, ...] = ()  # of the hub
    folder: str = ""  # in the package, of a model that comes with it
    inputs: tuple[str, ...] = ("text",)  # what a clip starts from
    # As trained, if that is not the family's; in `registry.PRESETS` always. None for images.
    fps: float | None = None
    dtype: DTypeName = "bf16"  # of `dtype: auto` on a GPU
    dtypes: Mapping[str, DTypeName] = field(default_factory=dict)  # of the components that differ
    # As the hub shows it, or summed over its files; None if neither could be checked.
    download_gb: float | None = None
    scheduler: str = ""  # as shipped, if that could be checked
    note: str = ""  # what else to know

    def fits(self, class_name: str, configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a model of this class with these configs is this one. configs: with `index`."""
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
        """Native height and width; None where they are those of the picture that it starts from."""
        sides = self.arguments.get("height"), self.arguments.get("width")
        return (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None

    @property
    def auto_dtypes(self) -> dict[str, DTypeName]:
        """What `dtype: auto` is on a GPU, by component, with a default."""
        return {"default": self.dtype, **self.dtypes}

    def weights_gb(self) -> dict[str, float]:
        """Return what each component's weights take on a GPU with `dtype: auto`."""
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
    # The same, for clips that `source` itself rendered: it must take their lengths.
    redraws_when: Mapping[str, bool] = field(default_factory=dict)
    otherwise: tuple[str, str] = ("", "")  # why a model with other values cannot, and what can
    noising: str | None = None  # the scheduler's method that it needs

    def fits(self, configs: _Configs, *, redraws: bool) -> bool:
        conditions = [*self.when.items(), *(self.redraws_when.items() if redraws else ())]
        return all(bool(config_value(configs, path)) is wanted for path, wanted in conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInput:
    layout: LatentLayout
    # What else makes the call that guidance leads away from, besides an empty prompt.
    unprompted: Mapping[str, Any] = field(default_factory=dict)
    # "module:function" from a row's own arguments and its frames to those that the pipeline is given; without
    # one it is the first, as `image`, where the call takes one.
    inputs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What holds for all pipelines whose class name starts with `prefix`; else configs decide.

    Read from `check_inputs`, `prepare_latents` and `__call__` of each pipeline in diffusers 0.42.
    """

    prefix: str
    # What height and width are multiples of, beyond what the pipeline's source says of them.
    size_base: int = 1
    # Of a call that gives no size: (height, width) in pixels, or one number in latent pixels; "config" asks
    # the denoiser's; None: not known.
    default_size: tuple[int, int] | int | Literal["config"] | None = None
    # The frame step is this times the autoencoder's temporal factor; 0 takes any frame count.
    frame_factor: int = 1
    # By class: it takes whole frame steps, without a first frame alone, if this "component.key" is set.
    whole_when: Mapping[str, str] = field(default_factory=dict)
    max_frames: int | None = None  # of the longest clips that it was trained on, if it renders no longer ones
    # Where no first frame is packed alone, images leave a clip fewer frames; `row_rules` check how many there
    # are.
    drops_repeats: bool = False
    fps: float | None = None  # the rate that the model was trained at; None for images
    # That of models with the config value "component.key" set.
    fps_when: Mapping[str, float] = field(default_factory=dict)
    # The call's own `fps` says how much motion there is to be, not how fast the clip plays.
    fps_is_motion: bool = False
    # Of a model whose text has fixed positions, if its config does not say how many.
    text_positions: int | None = None
    # `guidance_scale` is an input of the network, or read before the first step only, in pipelines without
    # `true_cfg_scale`.
    reads_guidance_once: bool = False
    # Both prompts are in one forward, of (B, C, F, H, W): all that FasterCache's skipping of the
    # unconditional half was written for.
    joins_prompts: bool = False
    # What the pipeline passes to `scheduler.set_timesteps` besides the number of steps. The default is the
    # careful guess: what most flow-matching pipelines send.
    sends: tuple[str, ...] = ("sigmas", "mu")
    # The only classes that its loop works with; empty: any of the right kind does.
    schedulers: tuple[str, ...] = ()
    # Of `dtype: auto` on a GPU, without a preset: by component, the others as `default`.
    dtypes: Mapping[str, DTypeName] = field(default_factory=lambda: WITHOUT_PRESET)
    license: str = ""  # of all weights that are published for its classes, if they have one
    is_guarded: bool = False  # its license asks for NVIDIA's guardrail: model/guardrail.py
    siblings: tuple[Sibling, ...] = ()
    training: Mapping[str, TrainingInput] = field(default_factory=dict)  # by the class of the pipeline
    # Classes that diffusers lacks, and the modules that hold them.
    pipelines: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, str] = field(default_factory=dict)  # the same of components
    # "module:function" that knows what a row may hold, beyond what each argument may be.
    row_rules: str | None = None
    # "module:function" from a checkpoint of its authors to what becomes of it, or to None.
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
    """Return what pipelines show their denoisers in training."""
    return {name: TrainingInput(layout=layout) for name in pipelines}
