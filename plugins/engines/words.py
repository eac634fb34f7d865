"""Translate rows' arguments to the fields of the API, as far as a server accepts them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import TYPE_CHECKING, Any

from framefleet.api.clips import Request
from framefleet.api.engines import ArgumentKind, Parameter
from framefleet.api.errors import Refused, RowError

if TYPE_CHECKING:
    from framefleet.api.models import PipelineSpec

# By argument of a row and field of the API: the type of its value.
_OF_BOTH: dict[str, ArgumentKind] = {
    "prompt": "str",
    "negative_prompt": "str",
    "width": "int",
    "height": "int",
    "num_inference_steps": "int",
    "guidance_scale": "float",
    "true_cfg_scale": "float",
    "image": "image",
}
_OF_VIDEOS: dict[str, ArgumentKind] = {
    "seconds": "float",
    "num_frames": "int",
    "fps": "float",
    "guidance_scale_2": "float",
    "flow_shift": "float",
}
_BOTH = "give both, or `size`"
_FILES = {"videos": "input_reference", "images": "image"}  # what an image to start from is called


def parameters_for(kind: str, takes: Collection[str] | None) -> dict[str, Parameter]:
    """Return the arguments that rows may have. kind: videos or images. takes: fields, if known."""
    known = _OF_BOTH | (_OF_VIDEOS if kind == "videos" else {})

    def is_taken(name: str) -> bool:
        others = {"width": "size", "height": "size", "num_frames": "seconds"}
        if name == "image":  # whatever else has that name; images are edited at a path of its own
            return takes is None or kind == "images" or _FILES[kind] in takes
        return takes is None or name in takes or others.get(name) in takes

    return {
        name: Parameter(name=name, kind=of, required=name == "prompt")
        for name, of in known.items()
        if name == "prompt" or is_taken(name)
    }


def clip_rules(
    arguments: dict[str, Any], own: Set[str], *, spec: PipelineSpec
) -> tuple[dict[str, Any], list[tuple[str, Refused]]]:
    """Return a row's arguments, and what no clip can be: refused before anything is paid. As a family's."""
    refused = []
    given = [name for name in ("height", "width") if arguments.get(name) is not None]
    if len(given) == 1:
        refused.append((given[0], Refused(reason="height or width is given alone", fix=_BOTH)))
    frames, seconds, fps = (arguments.get(name) for name in ("num_frames", "seconds", "fps"))
    if frames and seconds and fps and not is_about(frames, seconds * fps):
        reason = f"at {fps:g} fps that is {seconds * fps:g} frames, and num_frames is {frames}"
        refused.append(("seconds", Refused(reason=reason, fix="leave one of them out")))
    return arguments, refused


def is_about(frames: float, asked: float) -> bool:
    """Tell whether a clip has as many frames as were asked for in seconds, which servers round."""
    return abs(frames - asked) <= 1 + asked / 20


def size_asked(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the (height, width) that a row asks for; None leaves it to the server."""
    height, width = arguments.get("height"), arguments.get("width")
    if (height is None) != (width is None):
        raise RowError("height or width is given alone", _BOTH)
    return None if height is None or width is None else (int(height), int(width))


def frames_asked(arguments: Mapping[str, Any]) -> float | None:
    """Return the number of frames that a row asks for; None leaves it to the server."""
    frames, seconds, fps = (arguments.get(name) for name in ("num_frames", "seconds", "fps"))
    if frames is not None:
        return float(frames)
    return float(seconds) * float(fps) if seconds and fps else None


def length_asked(arguments: Mapping[str, Any]) -> float | None:
    """Return the length in seconds that a row asks for; None leaves it to the server."""
    frames, seconds, fps = (arguments.get(name) for name in ("num_frames", "seconds", "fps"))
    if seconds is not None:
        return float(seconds)
    return float(frames) / float(fps) if frames and fps else None


def fields_of(
    request: Request, *, model: str, kind: str, takes: Collection[str] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of a request, without the image. Raises RowError."""
    arguments = dict(request.arguments)
    fields: dict[str, Any] = {**options, "model": model, "seed": request.seed}
    arguments.pop("image", None)
    if (sides := size_asked(arguments)) is not None:
        for name in ("height", "width"):
            del arguments[name]
        if takes is None or "size" in takes:
            fields["size"] = f"{sides[1]}x{sides[0]}"
        else:
            fields |= {"width": sides[1], "height": sides[0]}
    if arguments.get("num_frames") is not None and takes is not None and "num_frames" not in takes:
        seconds = length_asked(arguments)
        if seconds is None:
            raise RowError("num_frames is set without fps, but the server needs seconds", "set both")
        del arguments["num_frames"]
        arguments["seconds"] = seconds
    if (length := arguments.get("seconds")) is not None:
        arguments["seconds"] = f"{length:g}"  # text, in this API
    return fields | {name: _plain(value) for name, value in arguments.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a whole number as int, since servers accept "8" as frame rate, but not "8.0"."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def file_word(kind: str) -> str:
    """Return the field for the image that a clip starts from, or that is edited."""
    return _FILES[kind]
