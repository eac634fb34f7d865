"""Read the lines of a batch file, and write lines of results and errors.

https://platform.openai.com/docs/guides/batch: input lines are {custom_id, method, url, body}, results and
errors are {id, custom_id, response: {status_code, request_id, body}, error}.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from framefleet.api.errors import JobError, shown
from framefleet.api.texts import parse_json
from framefleet.plugins.batch.words import URLS, VIDEOS_URL, Refusal

_KEYS = {"custom_id", "method", "url", "body"}
_MAX_BYTES = 64 << 20  # per line, which may contain a picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line that can be answered. custom_id: "" if it has none."""

    number: int  # from 1
    custom_id: str
    url: str = ""
    body: Mapping[str, Any] | None = None
    refusal: Refusal | None = None  # why it has no body

    @property
    def request_id(self) -> str:
        return sha256(f"{self.number}:{self.custom_id}".encode()).hexdigest()[:24]


def read_lines(file: Path) -> Iterator[Line]:
    """Yield the lines that are not blank. Raises JobError for a file that cannot be read."""
    seen = set[str]()
    try:
        with file.open("rb") as stream:
            number = 0
            while text := stream.readline(_MAX_BYTES):
                number += 1
                if len(text) == _MAX_BYTES:
                    problem = f"{file}, line {number:,}: it has {_MAX_BYTES:,} bytes or more"
                    raise JobError(problem, "name pictures by path or URL")
                if text.strip():
                    yield _read(number, text, seen)
    except OSError as error:
        raise JobError(f"{file} cannot be read: {error.strerror}", "check the path") from None


def _read(number: int, text: bytes, seen: set[str]) -> Line:
    custom_id = ""
    try:
        try:
            values = parse_json(text)
        except ValueError as error:
            raise Refusal(code="invalid_json_line", message=f"this is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise Refusal(code="invalid_json_line", message="this is not a JSON object")
        given = values.get("custom_id")
        if not isinstance(given, str) or not given:
            raise _missing("custom_id", "text of your own", given)
        _check_text(given)
        custom_id = given
        _check_text(values)
        if custom_id in seen:
            raise Refusal(
                code="duplicate_custom_id",
                message=f"another line has the custom_id {shown(custom_id)}",
                name="custom_id",
            )
        seen.add(custom_id)
        if unknown := values.keys() - _KEYS:
            raise Refusal(
                code="unknown_parameter",
                message=f"a line has no key {min(unknown)!r}; arguments belong in `body`",
                name=min(unknown),
            )
        if values.get("method") != "POST":
            raise Refusal(
                code="invalid_method",
                message=f"method is {shown(values.get('method'))}; use POST",
                name="method",
            )
        if values.get("url") not in URLS:
            urls = ", ".join(URLS)
            raise Refusal(
                code="invalid_url",
                message=f"url is {shown(values.get('url'))}; use one of {urls}",
                name="url",
            )
        if not isinstance(values.get("body"), dict):
            raise _missing("body", "a mapping of arguments", values.get("body"))
    except Refusal as refusal:
        return Line(number=number, custom_id=custom_id, refusal=refusal)
    return Line(number=number, custom_id=custom_id, url=values["url"], body=values["body"])


def _check_text(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "it has half of a character, e.g. of an emoji that was cut; write the line again"
        raise Refusal(code="invalid_json_line", message=message) from None


def _missing(name: str, wanted: str, value: object) -> Refusal:
    message = f"{name} is {shown(value)}; give {wanted}"
    return Refusal(code="missing_required_parameter", message=message, name=name)


def error_line(line: Line, refusal: Refusal) -> str:
    of_whom = "server_error" if refusal.status_code >= 500 else "invalid_request_error"
    error = {"message": refusal.message, "type": of_whom, "param": refusal.name, "code": refusal.code}
    short = {"code": refusal.code, "message": f"line {line.number:,}: {refusal.message}"}
    return _answer(line, refusal.status_code, {"error": error}, short)


def result_line(line: Line, records: Sequence[Mapping[str, Any]]) -> str:
    """Return the result line for a request. records: one for each of its rows."""
    assert line.body is not None, "it was rendered"
    if line.url == VIDEOS_URL:
        videos = [_video(line.body, record) for record in records]
        body = videos[0] if len(videos) == 1 else {"object": "list", "data": videos}
    else:
        as_text = line.body.get("response_format") == "b64_json"
        body = {
            "created": int(records[-1]["finished_at"].timestamp()),
            "data": [_image(record, as_text=as_text) for record in records],
        }
    return _answer(line, 200, body, None)


def _video(body: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    duration = record["duration_s"]
    return {
        "id": f"video_{record['row_id']}",
        "object": "video",
        "created_at": int(record["started_at"].timestamp()),
        "completed_at": int(record["finished_at"].timestamp()),
        "expires_at": None,
        "status": "completed",
        "progress": 100,
        "error": None,
        "remixed_from_video_id": None,
        "model": body.get("model") or record["model"],
        "prompt": body["prompt"],
        "seconds": "0" if duration is None else f"{duration:g}",
        "size": f"{record['width']}x{record['height']}",
        "url": record["uri"],
        **_framefleet(record),
    }


def _image(record: Mapping[str, Any], *, as_text: bool) -> dict[str, Any]:
    content = base64.b64encode(record["content"]).decode() if as_text else None
    place = {"b64_json": content} if as_text else {"url": record["uri"]}
    return place | {"size": f"{record['width']}x{record['height']}"} | _framefleet(record)


def _framefleet(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that have no field in the API."""
    return {name: record[name] for name in ("row_id", "seed", "num_frames", "fps", "media_sha256")}


def _answer(line: Line, status_code: int, body: Any, error: Any) -> str:
    response = {"status_code": status_code, "request_id": line.request_id, "body": body}
    answer = {
        "id": f"batch_req_{line.request_id}",
        "custom_id": line.custom_id or None,
        "response": response,
        "error": error,
    }
    return json.dumps(answer, ensure_ascii=False) + "\n"
