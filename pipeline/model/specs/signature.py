"""From a callable to the parameters that a table may give: names, kinds and defaults.

Some inputs take several media in order, each of its own kind. MiniMax-H3's `references` are
`list[MiniMaxH3Reference]`. Each subclass says its `kind` and opens a file with `from_file`; whatever a later
pipeline calls such classes, they are found by these two.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MediaKind = Literal["image", "video", "audio"]
MEDIA: tuple[MediaKind, ...] = typing.get_args(MediaKind)

Scalar = str | int | float | bool
ScalarKind = Literal["str", "int", "float", "bool"]
InputKind = Literal["image", "video"]
ListKind = Literal["list[int]", "list[float]", "list[str]"]
ImagesKind = Literal["images", "list[image]"]  # one or a list; a list alone
EitherKind = Literal["ints", "floats", "images"]  # one value or a list of them
PictureMode = Literal["RGB", "RGBA"]
ArgumentKind = ScalarKind | ListKind | InputKind | ImagesKind | EitherKind | Literal["references", "model"]
# Whose cells name files.
PLACES: tuple[ArgumentKind, ...] = ("image", "video", "images", "list[image]", "references")
# Parameters that take PIL images or lists of them: a cell holds the path or URL of one. Of others the
# annotation says whether they take images.
INPUTS: dict[str, InputKind] = {
    "image": "image",
    "last_image": "image",
    "original_image": "image",
    "mask_image": "image",
    "control_image": "image",
    "control_mask": "image",
    "video": "video",
    "control_video": "video",
    "driving_video": "video",
    "pose_video": "video",
    "face_video": "video",
    "background_video": "video",
    "mask_video": "video",
    "conditioning_frames": "video",
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
_KINDS: dict[Any, ScalarKind] = {str: "str", bool: "bool", int: "int", float: "float"}
PART_KINDS: dict[ListKind, ScalarKind] = {"list[int]": "int", "list[float]": "float", "list[str]": "str"}


def reference_classes(annotation: Any) -> dict[str, type]:
    """Return by kind the classes of which the annotation has a list; none where it has no such list."""
    lists = [typing.get_args(m) for m in members_of(annotation) if typing.get_origin(m) is list]
    bases: list[Any] = [part for parts in lists for part in parts if isinstance(part, type)]
    found: list[Any] = [made for base in bases for made in type.__subclasses__(base)]
    return {
        made.kind: made
        for made in found
        if hasattr(made, "from_file") and getattr(made, "kind", None) in MEDIA
    }


def references_of(pipe: Any) -> dict[str, dict[str, type]]:
    """Return the inputs of a pipeline's call that take references, and their classes by kind."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    found = {parameter.name: reference_classes(parameter.annotation) for parameter in parameters}
    return {name: classes for name, classes in found.items() if classes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a pipeline's `__call__` or of a recipe.

    kind: what a table's cell must be; None for tensors, lists of lists and plumbing, which no cell can give.
    entries: of what is called with a tuple, how many it has, 0 for any number; None for what is called with
        no tuple.
    default: what the signature has, when that is a scalar.
    """

    name: str
    kind: ArgumentKind | None
    entries: int | None = None
    default: Scalar | None = None
    required: bool = False


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the named parameters of `function` in order, without `self` and the catch-alls."""
    known = getattr(inspect.unwrap(function), "__globals__", {})
    fixed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        parameter_of(_evaluated(p, known))
        for p in inspect.signature(function).parameters.values()
        if p.kind in fixed and p.name != "self"
    )


def _evaluated(parameter: inspect.Parameter, known: dict[str, Any]) -> inspect.Parameter:
    """Return it with its annotation as an object, or as text where that is for type checkers only."""
    holder = type("Holder", (), {"__annotations__": {"given": parameter.annotation}})
    try:
        return parameter.replace(
            annotation=inspect.get_annotations(holder, globals=known, eval_str=True)["given"]
        )
    except (NameError, TypeError, AttributeError):
        return parameter


def parameter_of(parameter: inspect.Parameter) -> Parameter:
    """Return what one parameter of a signature is to a table."""
    kind: ArgumentKind | None = None
    if not PLUMBING.fullmatch(parameter.name):
        own = _kind(parameter) or INPUTS.get(parameter.name) or _media_kind(parameter)
        kind = "model" if parameter.name in MODELS else own
    given = parameter.default if parameter.default is not inspect.Parameter.empty else None
    default = given if kind != "model" and kind and isinstance(given, str | int | float) else None
    if kind == "float" and isinstance(default, int):
        default = float(default)  # some write `guidance_scale: float = 6`
    required = parameter.default is inspect.Parameter.empty
    entries = _entries(parameter) if kind in PART_KINDS else None
    return Parameter(name=parameter.name, kind=kind, entries=entries, default=default, required=required)


def _kind(parameter: inspect.Parameter) -> ScalarKind | ListKind | None:
    """Return the scalar that the annotation allows, else the list of them, or else the default's own type."""
    annotation: Any = parameter.annotation
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return _KINDS.get(type(parameter.default))
    members = members_of(annotation)
    found = [_KINDS[member] for member in members if member in _KINDS]
    parts = [*_parts(list, members), *_parts(tuple, members)]
    parts += _defaults_of(parameter, members)
    lists: list[ListKind] = [kind for kind, part in PART_KINDS.items() if part in parts]
    return "float" if "float" in found else found[0] if found else lists[0] if lists else None


def _defaults_of(parameter: inspect.Parameter, members: tuple[Any, ...]) -> list[ScalarKind]:
    """Return of what scalar the default's entries are, where the annotation is `list` alone."""
    entries = parameter.default if list in members and isinstance(parameter.default, list | tuple) else ()
    kinds = {_KINDS.get(type(entry)) for entry in entries}
    return [kind for kind in kinds if kind and len(kinds) == 1]


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
    inner = [part for member in members if typing.get_origin(member) is list for part in _parts_of(member)]
    return "list[image]" if any(map(_is_image, inner)) else None


def _is_image(annotation: Any) -> bool:
    made = (getattr(annotation, "__module__", ""), getattr(annotation, "__qualname__", ""))
    return made == ("PIL.Image", "Image")


def _parts_of(collection: Any) -> tuple[Any, ...]:
    return tuple(inner for part in typing.get_args(collection) for inner in members_of(part))


def _entries(parameter: inspect.Parameter) -> int | None:
    """Return how many entries the tuple has that is asked for; `tuple[int]` is meant as any number."""
    members = members_of(parameter.annotation)
    tuples = [typing.get_args(member) for member in members if typing.get_origin(member) is tuple]
    if not tuples or _parts(list, members):
        return None
    return len(tuples[0]) if len(tuples[0]) > 1 and ... not in tuples[0] else 0


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return what a union is of; any other annotation by itself."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return typing.get_args(annotation) if is_union else (annotation,)


def _parts(collection: type, members: tuple[Any, ...]) -> list[ScalarKind]:
    """Return of what scalars the types hold lists, or tuples; typing's List and Tuple are such too."""
    inner = [typing.get_args(member) for member in members if typing.get_origin(member) is collection]
    alike = [set(types) - {...} for types in inner]
    return [_KINDS[kind] for (kind,) in (kinds for kinds in alike if len(kinds) == 1) if kind in _KINDS]
