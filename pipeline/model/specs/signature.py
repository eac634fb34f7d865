"""From a callable to the parameters that a table may give: names, kinds and defaults.

Some inputs take several media in order, each of its own kind (MiniMax-H3's `references`): lists of classes,
each subclass of which says its `kind` and opens a file with `from_file`.
Which inputs take several values for one clip (images to edit or to refer to, a value for each of several
ControlNets) annotations do not say: `list[PIL.Image.Image]` is a batch of rows to most pipelines.
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

Scalar = str | int | float | bool
ScalarKind = Literal["str", "int", "float", "bool"]
InputKind = Literal["image", "video"]
ListKind = Literal["list[int]", "list[float]", "list[str]"]
ImagesKind = Literal["images", "list[image]"]  # one or a list; a list alone
EitherKind = Literal["ints", "floats", "images"]  # one value or a list of them
PictureMode = Literal["RGB", "RGBA"]
Fit = Literal["crop", "pad", "stretch", "area"]  # how pictures get the proportions of the size of a clip
ArgumentKind = ScalarKind | ListKind | InputKind | ImagesKind | EitherKind | Literal["references", "model"]
# Whose cells name files.
PLACES: tuple[ArgumentKind, ...] = ("image", "video", "images", "list[image]", "references")
# Parameters that take PIL images or lists of them: a cell holds the path or URL of one. Of others the
# annotation says whether they take images.
INPUTS: dict[str, InputKind] = {
    **dict.fromkeys(("image", "last_image", "original_image"), "image"),
    **dict.fromkeys(("mask_image", "control_image", "control_mask"), "image"),
    **dict.fromkeys(("video", "control_video", "driving_video", "pose_video", "face_video"), "video"),
    **dict.fromkeys(("background_video", "mask_video", "conditioning_frames", "controls"), "video"),
}
# Annotated as images, and no pictures; and those for which a model has to hold an IP-adapter, which none can.
_NO_PICTURES = re.compile(r".*(latents|embeds)|(negative_)?ip_adapter_image")
# Annotated as `list` alone, and of pictures by their name.
_PICTURES = re.compile(r"(\w+_)?images")
# Parameters of recipes that take a loaded model, which makes such a thing from text: a cell holds its name in
# the job.
MODELS: dict[str, InputKind] = {"image_model": "image", "keyframe_model": "video"}
# What framefleet sets itself, or what would make one row several clips.
PLUMBING = re.compile(
    r"output_type|return_dict|generator|seed|(\w+_)?callback.*|batch_size|num_(videos|images|waveforms)_per_prompt"
)
FRAME_PARAMETERS = ("num_frames", "video_length", "frames")  # what calls name the number of frames
# By class: of the images that it is given, it makes one.
_UNION = "StableDiffusionXLControlNetUnion"
_SEVERAL_IMAGES: Mapping[str, str] = {
    **dict.fromkeys(("BriaFibo2Pipeline", "Flux2KleinKVPipeline", "Flux2KleinPipeline"), "image"),
    **dict.fromkeys(("Flux2Pipeline", "QwenImage21Pipeline", "QwenImageEditPlusPipeline"), "image"),
    **{"ZImageOmniPipeline": "image", "OmniGenPipeline": "input_images"},
    **{f"{_UNION}{task}Pipeline": "control_image" for task in ("", "Img2Img", "Inpaint")},
}
# Whose annotations say something else: a single image fails; each image is a frame.
_OWN_KINDS: Mapping[str, tuple[str, ArgumentKind]] = {
    "GlmImagePipeline": ("image", "list[image]"),
    "WanVACEPipeline": ("mask", "video"),
}
# Of several ControlNets each has its own; a union of them takes its modes besides the images.
OF_EACH = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "control_mode")
_EITHER: Mapping[ArgumentKind | None, EitherKind] = {"int": "ints", "float": "floats", "image": "images"}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_KINDS: dict[Any, ScalarKind] = {str: "str", bool: "bool", int: "int", float: "float"}
PART_KINDS: dict[ListKind, ScalarKind] = {"list[int]": "int", "list[float]": "float", "list[str]": "str"}


def reference_classes(annotation: Any) -> dict[str, type]:
    """Return by kind the classes that the annotation has lists of; none where it has no such list."""
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
    # What a table's cell must be; None for tensors, lists of lists and plumbing, which no cell can give.
    kind: ArgumentKind | None
    entries: int | None = None  # of the tuple that it takes, 0 for any number; None if it takes none
    default: Scalar | None = None  # what the signature has, when that is a scalar
    required: bool = False


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the named parameters of `function` in order, without `self` and the catch-alls."""
    names = getattr(inspect.unwrap(function), "__globals__", {})
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        holder = type("Holder", (), {"__annotations__": {"own": parameter.annotation}})
        # What is for type checkers only stays a text.
        with contextlib.suppress(NameError, TypeError, AttributeError):
            annotation = inspect.get_annotations(holder, globals=names, eval_str=True)["own"]
            parameter = parameter.replace(annotation=annotation)
        if parameter.kind in _NAMED and parameter.name != "self":
            parameters.append(parameter_of(parameter))
    return tuple(parameters)


def with_several(parameters: Iterable[Parameter], class_name: str, configs: Configs) -> list[Parameter]:
    """Return the parameters of a class, with the kinds of those that take several values."""
    by_name = {parameter.name: parameter for parameter in parameters}
    several = {_SEVERAL_IMAGES[class_name]} if class_name in _SEVERAL_IMAGES else set()
    if several and class_name.startswith(_UNION):
        several.add("control_mode")
    if has_controlnets(configs):
        several |= {controlling(by_name), *OF_EACH}
    own, own_kind = _OWN_KINDS.get(class_name, ("", None))
    kinds = {name: _EITHER.get(by_name[name].kind, by_name[name].kind) for name in several & by_name.keys()}
    kinds |= {own: own_kind} if own else {}
    return [replace(one, kind=kinds.get(one.name, one.kind)) for one in by_name.values()]


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
        # `tuple[int]` is meant as any number
        entries = len(tuples[0]) if len(tuples[0]) > 1 and ... not in tuples[0] else 0
    return Parameter(
        name=parameter.name,
        kind=kind,
        entries=entries,
        default=default if isinstance(default, str | int | float) else None,
        required=parameter.default is inspect.Parameter.empty,
    )


def _kind(parameter: inspect.Parameter) -> ScalarKind | ListKind | None:
    """Return the scalar that the annotation allows, else the list of them, or else the default's own type."""
    annotation: Any = parameter.annotation
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return _KINDS.get(type(parameter.default))
    members = members_of(annotation)
    if any(map(_is_image, members)):  # SANA-WM's may be a path, too
        return None
    scalars = [_KINDS[member] for member in members if member in _KINDS]
    if scalars:
        return "float" if "float" in scalars else scalars[0]
    parts = _scalars([*_parameters_of(list, annotation), *_parameters_of(tuple, annotation)])
    if list in members and isinstance(parameter.default, list | tuple):  # by its default's entries
        parts += _scalars([tuple(map(type, parameter.default))])
    return next((kind for kind, part in PART_KINDS.items() if part in parts), None)


def _media_kind(parameter: inspect.Parameter) -> Literal["image", "list[image]", "references"] | None:
    """Return whether the annotation has an image, or lists of images alone, or lists of references."""
    if _NO_PICTURES.fullmatch(parameter.name):
        return None
    if isinstance(parameter.annotation, str):  # as it is written, where it cannot be evaluated
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
    """Return what a union is of; any other annotation by itself."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return typing.get_args(annotation) if is_union else (annotation,)


def _parameters_of(collection: type, annotation: Any) -> list[tuple[Any, ...]]:
    """Return what the lists, or the tuples, of an annotation are of; typing's List and Tuple are such too."""
    members = members_of(annotation)
    return [typing.get_args(member) for member in members if typing.get_origin(member) is collection]


def _scalars(collections: Iterable[tuple[Any, ...]]) -> list[ScalarKind]:
    """Return of what scalars collections are that are of one type only."""
    alike = [(*(set(types) - {...}),) for types in collections]
    return [_KINDS[kinds[0]] for kinds in alike if len(kinds) == 1 and kinds[0] in _KINDS]
