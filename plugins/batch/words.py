"""Translate the body of a request from fields of OpenAI's API to columns of a row.

https://platform.openai.com/docs/api-reference/batch and the videos and images APIs. A body may also have any
argument of the model's pipeline, as servers of open models accept them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.api.errors import shown
from framefleet.api.models import FRAME_PARAMETERS, PipelineSpec
from framefleet.api.texts import did_you_mean

VIDEOS_URL, IMAGES_URL, EDITS_URL = "/v1/videos", "/v1/images/generations", "/v1/images/edits"
URLS = (VIDEOS_URL, IMAGES_URL, EDITS_URL)
# Fields that do not affect the pictures; and fields with the values that do not.
_SILENT = {"user", "metadata", "moderation", "safety_identifier"}
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "quality": ("auto", "standard"),
    "background": ("auto",),
    "stream": (False,),
    "partial_images": (0,),
    "response_format": ("url", "b64_json"),
}
_MOST_CLIPS = 100
_PICTURES = ("input_reference", "image", "images")
_OWN = {"model", "prompt", *_PICTURES}
_IN_TABLES = {"n", "size", "seconds", "seed", "fps"}  # besides arguments


class Refusal(Exception):
    """Why a line has no result. code: from the API. name: of the wrong field.

    status_code: 500 if rendering failed.
    """

    def __init__(self, *, code: str, message: str, name: str | None = None, status_code: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.name, self.status_code = code, message, name, status_code


def row_of(body: Mapping[str, Any], url: str, spec: PipelineSpec) -> dict[str, Any]:
    """Return the columns of a row. Tables read size, seconds and n in the same way as the API.

    Raises Refusal for fields and values that a table does not support.
    """
    columns: dict[str, Any] = {}
    settable = spec.settable()
    if (url == VIDEOS_URL) != (spec.kind == "video"):
        message = f"{url} asks for something else than {spec.class_name} renders: {spec.kind}"
        raise Refusal(code="invalid_url", message=message, name="url")
    for name, value in body.items():
        if value is None or name in _OWN or name in _SILENT:
            continue
        if name in _USUAL:
            if value not in _USUAL[name]:
                usual = " or ".join(map(shown, _USUAL[name]))
                raise _unsupported(name, f"{name} is {shown(value)}; use {usual}")
        elif name in settable or name in _IN_TABLES:
            columns[name] = value
        else:
            fix = did_you_mean(name, [*_OWN, *_IN_TABLES, *settable])
            message = f"{spec.class_name} does not accept {name!r}; {fix}"
            raise Refusal(code="unknown_parameter", message=message, name=name)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refusal(code="missing_required_parameter", message="there is no prompt", name="prompt")
    columns["prompt"] = prompt
    if _is_above(columns.get("n"), _MOST_CLIPS):  # of one line, in this API
        raise _invalid("n", columns["n"], f"give a whole number from 1 to {_MOST_CLIPS}")
    if "seconds" in columns:
        takes = url == VIDEOS_URL and not settable.keys().isdisjoint((*FRAME_PARAMETERS, "seconds"))
        if not takes:
            raise _unsupported("seconds", f"{spec.class_name} does not accept a length")
    if "size" in columns and not settable.keys() >= {"width", "height"}:
        raise _unsupported("size", f"{spec.class_name} does not accept a size")
    if (picture := _picture(body)) is not None:
        if "image" not in settable:
            raise _unsupported(picture[0], f"{spec.class_name} does not accept an image")
        columns["image"] = picture[1]
    elif url == EDITS_URL:
        raise Refusal(code="missing_required_parameter", message="there is no image to edit", name="image")
    return columns


def _is_above(value: Any, most: int) -> bool:
    try:
        return float(value) > most
    except (TypeError, ValueError, OverflowError):  # no number, which the table refuses
        return False


def _picture(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the field that names a picture to start from, and its path, URL or data URL."""
    given = {name: body[name] for name in _PICTURES if body.get(name) is not None}
    for name, value in given.items():
        parts = value if isinstance(value, list) else [value]
        if len(parts) != 1 or len(given) != 1:
            raise _invalid(name, value, "give one image")
        part = parts[0].get("image_url") if isinstance(parts[0], Mapping) else parts[0]
        part = part.get("url") if isinstance(part, Mapping) else part
        if not isinstance(part, str) or not part:
            raise _invalid(name, value, "give a path, a URL or a data URL of an image")
        return name, part
    return None


def _unsupported(name: str, message: str) -> Refusal:
    return Refusal(code="unsupported_value", message=message, name=name)


def _invalid(name: str, value: object, fix: str) -> Refusal:
    return Refusal(code="invalid_value", message=f"{name} is {shown(value)}; {fix}", name=name)
