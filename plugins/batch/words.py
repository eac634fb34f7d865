"""From the body of a request, in the words of OpenAI's API, to the columns of a row.

https://platform.openai.com/docs/api-reference/batch and the videos and images APIs. Beyond OpenAI's words a
body may have every argument of the model's own pipeline, as the servers of open models take them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framefleet.api.errors import shown
from framefleet.api.texts import did_you_mean

if TYPE_CHECKING:
    from framefleet.api.models import PipelineSpec

VIDEOS_URL, IMAGES_URL, EDITS_URL = "/v1/videos", "/v1/images/generations", "/v1/images/edits"
URLS = (VIDEOS_URL, IMAGES_URL, EDITS_URL)
MOST_CLIPS = 100  # of one line
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
# What says nothing about the pictures; and, by name, the values that say no more than that.
_SILENT = {"user", "metadata", "moderation", "safety_identifier"}
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "quality": ("auto", "standard"),
    "background": ("auto",),
    "stream": (False,),
    "partial_images": (0,),
    "response_format": ("url", "b64_json"),
}
_OWN = {"model", "prompt", "n", "size", "seconds", "seed", "fps", "image", "images", "input_reference"}


class Refusal(Exception):
    """Why a line has no result. code: as the API has it. name: of the field that is to change.

    status_code: 500 where it failed as it was rendered.
    """

    def __init__(self, *, code: str, message: str, name: str | None = None, status_code: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.name, self.status_code = code, message, name, status_code


def row_of(
    body: Mapping[str, Any], url: str, spec: PipelineSpec, fps: float | None
) -> tuple[dict[str, Any], int]:
    """Return the columns of a row, by name, and how many rows there are, with seeds that follow each other.

    fps: of the clips where the body gives none; None: the model's own. Raises Refusal.
    """
    columns: dict[str, Any] = {}
    settable = spec.settable()
    for name, value in body.items():
        if value is None or name in _OWN or name in _SILENT:
            continue
        if name in _USUAL:
            if value not in _USUAL[name]:
                usual = " or ".join(map(shown, _USUAL[name]))
                raise Refusal(
                    code="unsupported_value", message=f"{name} is {shown(value)}; use {usual}", name=name
                )
        elif name in settable:
            columns[name] = value
        else:
            raise Refusal(
                code="unknown_parameter",
                message=f"{spec.class_name} takes no {name!r}; {did_you_mean(name, [*_OWN, *settable])}",
                name=name,
            )
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refusal(code="missing_required_parameter", message="there is no prompt", name="prompt")
    columns |= {"prompt": prompt} | _size(body)
    if body.get("seed") is not None:
        columns["seed"] = _whole(body, "seed", least=0, most=2**63 - 1 - MOST_CLIPS)
    rate = body.get("fps")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0):
        raise _invalid("fps", rate, "give a number above 0")
    if rate is not None:
        columns["fps"] = rate
    if body.get("seconds") is not None and url == VIDEOS_URL and "seconds" in settable:  # of an engine
        columns["seconds"] = _seconds(body)
    elif body.get("seconds") is not None:
        columns["num_frames"] = _num_frames(body, url, spec, rate or fps or spec.native_fps)
    if (picture := _picture(body)) is not None:
        if "image" not in settable:
            raise Refusal(
                code="unsupported_value", message=f"{spec.class_name} takes no image", name=picture[0]
            )
        columns["image"] = picture[1]
    elif url == EDITS_URL:
        raise Refusal(code="missing_required_parameter", message="there is no image to edit", name="image")
    num = 1 if body.get("n") is None else _whole(body, "n", least=1, most=MOST_CLIPS)
    return columns, num


def _size(body: Mapping[str, Any]) -> dict[str, int]:
    size = body.get("size")
    if size is None or size == "auto":
        return {}
    if not isinstance(size, str) or not (match := _SIZE.fullmatch(size)):
        raise _invalid("size", size, 'give width and height, as "1280x720"')
    for name, number in zip(("width", "height"), match.groups(), strict=True):
        if body.get(name) not in (None, int(number)):
            raise _invalid(name, body[name], f"leave it out beside the size {size}")
    return {"width": int(match[1]), "height": int(match[2])}


def _num_frames(body: Mapping[str, Any], url: str, spec: PipelineSpec, fps: float | None) -> int:
    """Return how many frames of the model come nearest to the seconds."""
    seconds = _seconds(body)
    if url != VIDEOS_URL or "num_frames" not in spec.settable():
        raise Refusal(code="unsupported_value", message=f"{spec.class_name} takes no length", name="seconds")
    if body.get("num_frames") is not None:
        raise _invalid("num_frames", body["num_frames"], "leave it out beside `seconds`")
    if not fps:
        raise Refusal(
            code="missing_required_parameter", message="seconds need a rate, and there is none", name="fps"
        )
    if spec.only_frames:
        return spec.only_frames
    step, rest = spec.frame_step or 1, spec.frame_rest if spec.frame_step else 0
    return max(round((seconds * fps - rest) / step), 0 if rest else 1) * step + rest


def _seconds(body: Mapping[str, Any]) -> float:
    text = body["seconds"]
    try:
        seconds = 0.0 if isinstance(text, bool) else float(text)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise _invalid("seconds", text, "give seconds of a clip, as 4")
    return seconds


def _picture(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the field that names a picture to start from, and its path, URL or data URL."""
    for name in ("input_reference", "image", "images"):
        value = body.get(name)
        parts = value if isinstance(value, list) else [value]
        if value is None:
            continue
        if len(parts) != 1:
            raise _invalid(name, value, "give one image")
        part = parts[0].get("image_url") if isinstance(parts[0], Mapping) else parts[0]
        part = part.get("url") if isinstance(part, Mapping) else part
        if not isinstance(part, str) or not part:
            raise _invalid(name, value, "give a path, a URL or a data URL of an image")
        return name, part
    return None


def _whole(body: Mapping[str, Any], name: str, *, least: int, most: int) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _invalid(name, value, f"give a whole number from {least} to {most:,}")
    return value


def _invalid(name: str, value: object, fix: str) -> Refusal:
    return Refusal(code="invalid_value", message=f"{name} is {shown(value)}; {fix}", name=name)
