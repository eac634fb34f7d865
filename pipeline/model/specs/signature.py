"""From a callable to the parameters that a table may set: names, kinds and defaults.

Some inputs take several media of different kinds in order (MiniMax-H3's `references`). These are annotated as
lists of classes, whose subclasses have a `kind`, and open a file with `from_file`. Annotations do not say
which inputs take several values for one clip (images to edit or refer to, a value for each ControlNet):
`list[PIL.Image.Image]` is a batch of rows for most pipelines.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from framefleet.pipeline.model.specs.model_index import Configs, has_controlnets

MediaKind = Literal["image", "video", "audio"]
MEDIA: tuple[MediaKind, ...] = typing.get_args(MediaKind)
WITH_ARTICLE: Mapping[MediaKind, str] = {"image": "an image", "video": "a video", "audio": "a sound"}

Scalar = str | int | float | bool
ScalarKind = Literal["str", "int", "float", "bool"]
InputKind = Literal["image", "video"]
ListKind = Literal["list[int]", "list[float]", "list[str]"]
ImagesKind = Literal["images", "list[image]"]  # one or a list; only a list
EitherKind = Literal["ints", "floats", "images"]  # one value or a list of them
PictureMode = Literal["RGB", "RGBA"]
Fit = Literal["crop", "pad", "stretch", "area"]  # how pictures get the proportions of the size of a clip
ArgumentKind = ScalarKind | ListKind | InputKind | ImagesKind | EitherKind | Literal["references", "model"]
# Kinds whose cells name files.
PLACES: tuple[ArgumentKind, ...] = ("image", "video", "images", "list[image]", "references")
# Parameters that take PIL images or lists of them: a cell has the path or URL of one. For others, the
# annotation says whether they take images.
INPUTS: dict[str, InputKind] = {
    **dict.fromkeys(("image", "last_image", "original_image"), "image"),
    **dict.fromkeys(("mask_image", "control_image", "control_mask"), "image"),
    **dict.fromkeys(("video", "control_video", "driving_video", "pose_video", "face_video"), "video"),
    **dict.fromkeys(("background_video", "mask_video", "conditioning_frames", "controls"), "video"),
}
# Annotated as images, but not pictures; or for an IP-adapter, which must be declared.
_NO_PICTURES = re.compile(r".*(latents|embeds)|(negative_)?ip_adapter_image")
# Annotated only as `list`, but pictures by their name.
_PICTURES = re.compile(r"(\w+_)?images")
# Parameters of recipes that take a loaded model, which makes an image or a video from text: a cell has its
# name in the job.
MODELS: dict[str, InputKind] = {"image_model": "image", "keyframe_model": "video"}
# Parameters that framefleet sets itself, or that would make several clips from a row.
PLUMBING = re.compile(
    r"output_type|return_dict|generator|seed|(\w+_)?callback.*|batch_size|num_(videos|images|waveforms)_per_prompt"
)
FRAME_PARAMETERS = ("num_frames", "video_length", "frames")  # names of the number of frames
# By class: the parameter that takes several images for one clip.
_UNION = "StableDiffusionXLControlNetUnion"
_SEVERAL_IMAGES: Mapping[str, str] = {
    **dict.fromkeys(("BriaFibo2Pipeline", "Flux2KleinKVPipeline", "Flux2KleinPipeline"), "image"),
    **dict.fromkeys(("Flux2Pipeline", "QwenImage21Pipeline", "QwenImageEditPlusPipeline"), "image"),
    **{"ZImageOmniPipeline": "image", "OmniGenPipeline": "input_images"},
    **{f"{_UNION}{task}Pipeline": "control_image" for task in ("", "Img2Img", "Inpaint")},
}
# Classes with wrong annotations: a single image fails; each image is a frame.
_OWN_KINDS: Mapping[str, tuple[str, ArgumentKind]] = {
    "GlmImagePipeline": ("image", "list[image]"),
    "WanVACEPipeline": ("mask", "video"),
}
# With several ControlNets, each has its own value; a union of ControlNets also takes a mode for each image.
OF_EACH = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "control_mode")
_EITHER: Mapping[ArgumentKind | None, EitherKind] = {"int": "ints", "float": "floats", "image": "images"}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_KINDS: dict[Any, ScalarKind] = {str: "str", bool: "bool", int: "int", float: "float"}
PART_KINDS: dict[ListKind, ScalarKind] = {"list[int]": "int", "list[float]": "float", "list[str]": "str"}


def reference_classes(annotation: Any) -> dict[str, type]:
    """Return the classes of references in an annotation, by kind; {} if it has no list of them."""
    parts = [part for parts in _parameters_of(list, annotation) for part in parts]
    bases: list[Any] = [part for part in parts if isinstance(part, type)]
    classes: list[Any] = [made for base in bases for made in type.__subclasses__(base)]
    references = [made for made in classes if hasattr(made, "from_file")]
    return {made.kind: made for made in references if getattr(made, "kind", None) in MEDIA}


def references_of(pipe: Any) -> dict[str, dict[str, type]]:
    """Return the inputs of a pipeline's call that take references, and their classes by kind."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    classes = {parameter.name: reference_classes(parameter.annotation) for parameter in parameters}
    return {name: by_kind for name, by_kind in classes.items() if by_kind}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a pipeline's `__call__` or of a recipe."""

    name: str
    # What a table's cell must be; None for tensors, nested lists and plumbing, which a cell cannot set.
    kind: ArgumentKind | None
    entries: int | None = None  # length of its tuple, 0 for any length; None if it takes no tuple
    default: Scalar | None = None  # the signature's, if it is a scalar
    required: bool = False


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the named parameters of `function` in order, without `self`, `*args` and `**kwargs`."""
    names = getattr(inspect.unwrap(function), "__globals__", {})
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        holder = type("Holder", (), {"__annotations__": {"own": parameter.annotation}})
        # Annotations that only type checkers import stay text.
        with contextlib.suppress(NameError, TypeError, AttributeError):
            annotation = inspect.get_annotations(holder, globals=names, eval_str=True)["own"]
            parameter = parameter.replace(annotation=annotation)
        if parameter.kind in _NAMED and parameter.name != "self":
            parameters.append(parameter_of(parameter))
    return tuple(parameters)


def with_several(parameters: Iterable[Parameter], class_name: str, configs: Configs) -> list[Parameter]:
    """Return the parameters of a class, with the right kinds for those that take several values."""
    by_name = {parameter.name: parameter for parameter in parameters}
    several = {_SEVERAL_IMAGES[class_name]} if class_name in _SEVERAL_IMAGES else set()
    if several and class_name.startswith(_UNION):
        several.add("control_mode")
    if has_controlnets(configs):
        several |= {controlling(by_name), *OF_EACH}
    own, own_kind = _OWN_KINDS.get(class_name, ("", None))
    kinds = {name: _EITHER.get(by_name[name].kind, by_name[name].kind) for name in several & by_name.keys()}
    kinds |= {own: own_kind} if own else {}
    return [replace(parameter, kind=kinds.get(name, parameter.kind)) for name, parameter in by_name.items()]


def controlling(names: Collection[str]) -> str:
    return "control_image" if "control_image" in names else "image"


def parameter_of(parameter: inspect.Parameter) -> Parameter:
    kind: ArgumentKind | None = None
    if not PLUMBING.fullmatch(parameter.name):
        own = _kind(parameter) or INPUTS.get(parameter.name) or _media_kind(parameter)
        kind = "model" if parameter.name in MODELS else own
    default = parameter.default if kind not in (None, "model") else None
    if kind == "float" and isinstance(default, int):
        default = float(default)  # some write `guidance_scale: float = 6`
    tuples = _parameters_of(tuple, parameter.annotation)
    entries = None
    if kind in PART_KINDS and tuples and not _scalars(_parameters_of(list, parameter.annotation)):
        # Authors write `tuple[int]` for a tuple of any length.
        entries = len(tuples[0]) if len(tuples[0]) > 1 and ... not in tuples[0] else 0
    return Parameter(
        name=parameter.name,
        kind=kind,
        entries=entries,
        default=default if isinstance(default, str | int | float) else None,
        required=parameter.default is inspect.Parameter.empty,
    )


def _kind(parameter: inspect.Parameter) -> ScalarKind | ListKind | None:
    """Return the scalar in the annotation, else the list of scalars, or else the default's type."""
    annotation: Any = parameter.annotation
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return _KINDS.get(type(parameter.default))
    members = members_of(annotation)
    if any(map(_is_image, members)):  # SANA-WM also takes paths
        return None
    scalars = [_KINDS[member] for member in members if member in _KINDS]
    if scalars:
        return "float" if "float" in scalars else scalars[0]
    parts = _scalars([*_parameters_of(list, annotation), *_parameters_of(tuple, annotation)])
    if list in members and isinstance(parameter.default, list | tuple):  # by its default's entries
        parts += _scalars([tuple(map(type, parameter.default))])
    return next((kind for kind, part in PART_KINDS.items() if part in parts), None)


def _media_kind(parameter: inspect.Parameter) -> Literal["image", "list[image]", "references"] | None:
    """Return the kind of media in the annotation: an image, only lists of images, or references."""
    if _NO_PICTURES.fullmatch(parameter.name):
        return None
    if isinstance(parameter.annotation, str):  # it could not be evaluated
        return "image" if "PIL.Image.Image" in parameter.annotation else None
    if reference_classes(parameter.annotation):
        return "references"
    members = members_of(parameter.annotation)
    if any(map(_is_image, members)):
        return "image"
    if list in members and _PICTURES.fullmatch(parameter.name):
        return "list[image]"
    lists = _parameters_of(list, parameter.annotation)
    inner = [member for parts in lists for part in parts for member in members_of(part)]
    return "list[image]" if any(map(_is_image, inner)) else None


def _is_image(annotation: Any) -> bool:
    made = (getattr(annotation, "__module__", ""), getattr(annotation, "__qualname__", ""))
    return made == ("PIL.Image", "Image")


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union; for other annotations, the annotation itself."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return typing.get_args(annotation) if is_union else (annotation,)


def _parameters_of(collection: type, annotation: Any) -> list[tuple[Any, ...]]:
    """Return the type arguments of each list (or tuple) in an annotation; also of typing's List and Tuple."""
    members = members_of(annotation)
    return [typing.get_args(member) for member in members if typing.get_origin(member) is collection]


def _scalars(collections: Iterable[tuple[Any, ...]]) -> list[ScalarKind]:
    """Return the scalar kinds of collections with only one element type."""
    alike = [(*(set(types) - {...}),) for types in collections]
    return [_KINDS[kinds[0]] for kinds in alike if len(kinds) == 1 and kinds[0] in _KINDS]
