"""Read the settings in the metadata of a picture or clip.

Files are not trusted, so they are read in a sandbox, which runs this file. Pixels are not decoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from framefleet.api.clips import read_metadata
from framefleet.api.errors import StoreError
from framefleet.api.texts import parse_json
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.outputs.embedded_text import row_id_in
from framefleet.pipeline.outputs.media.media_settings import COMMENT
from framefleet.plugins.metadata.a1111 import read_text
from framefleet.plugins.metadata.cells import Told, Unreadable, told
from framefleet.plugins.metadata.comfyui import read_graph

_MAX_TEXT = 1 << 22  # characters of one text; only graphs with embedded pictures are larger
_MAX_READING_S = 60.0  # only malicious files take longer
_OPENING = 1 << 30  # bytes of memory besides the file
_SOURCES = ("prompt", "make", "model")  # where ComfyUI writes its graph: pngs and clips, and webp
_WITHOUT_TEXTS = (
    b"BM",
    b"GIF87a",
    b"II*\0",
    b"MM\0*",
)  # bmp, old gif and tiff: no program writes settings there
_NOTHING = "it has no known metadata"
_INVOKEAI_NAMES = {
    "prompt": "positive_prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "height": "height",
    "width": "width",
}
_INVOKEAI_CARRIED = ("scheduler", "app_version", "generation_mode")


def told_by(content: bytes) -> Told:
    """Return a file's settings. Raises Unreadable."""
    try:
        texts = read_metadata(content)
    except StoreError as error:
        if content.startswith(_WITHOUT_TEXTS):
            raise Unreadable(_NOTHING) from None
        raise Unreadable(f"it cannot be opened: {error.problem.partition(': ')[2]}") from None
    reasons = []
    for read in _readings(texts):
        try:
            return read()
        except Unreadable as error:
            reasons.append(str(error))
    if not reasons and row_id_in(texts.values()):
        reasons.append("it has only its row_id; `framefleet trace` finds the row")
    raise Unreadable(reasons[0] if reasons else _NOTHING)


def _readings(texts: Mapping[str, str]) -> Iterator[Callable[[], Told]]:
    """Yield readers for these texts, the most reliable first."""
    comment = texts.get(COMMENT, "")
    values = _json_of(comment)
    if comment and values is None:
        yield partial(read_text, comment)
    if (invoke := texts.get("invokeai_metadata")) is not None:
        yield partial(_read_invokeai, _json_of(invoke))
    graphs = [texts.get(name, "").removeprefix("prompt:") for name in _SOURCES]
    for graph in [*map(_json_of, graphs), values.get("prompt") if isinstance(values, dict) else None]:
        value = _json_of(graph) if isinstance(graph, str) else graph
        if isinstance(value, dict):
            yield partial(read_graph, value)


def _read_invokeai(values: Any) -> Told:
    """Return the settings in InvokeAI's JSON. Raises Unreadable for other JSON."""
    if not isinstance(values, dict):
        raise Unreadable("its InvokeAI metadata is not a JSON object")
    others = {name: values[name] for name in _INVOKEAI_CARRIED if isinstance(values.get(name), str)}
    if isinstance(model := values.get("model"), dict) and isinstance(model.get("name"), str):
        others["model"] = model["name"]
    return told("InvokeAI", {name: values.get(theirs) for name, theirs in _INVOKEAI_NAMES.items()}, others)


def _json_of(text: str) -> Any:
    """Return a JSON object; None for any other text."""
    if not text.lstrip().startswith("{") or len(text) > _MAX_TEXT:
        return None
    try:
        return parse_json(text)
    except ValueError:
        return None


class MetadataReader:
    """Reads files in sandboxes. Thread-safe."""

    def __init__(self) -> None:
        self._boxes = Sandboxes(__name__, max_silence_s=_MAX_READING_S)

    def read(self, content: bytes) -> Told:
        """Return a file's settings. Raises Unreadable."""
        try:
            with self._boxes.one() as box:
                box.send(len(content).to_bytes(8, "little"))
                box.send(content)
                answer = json.loads(box.receive())
        except Ended as error:
            raise Unreadable(f"it cannot be read: {error}") from None
        if isinstance(answer, str):
            raise Unreadable(answer)
        return Told(**answer)

    def close(self) -> None:
        self._boxes.close()


def _answer(connection: Connection) -> None:
    """Answer one request: its size, then its bytes."""
    bound_memory(3 * int.from_bytes(connection.recv_bytes(), "little") + _OPENING)
    try:
        answer: object = asdict(told_by(connection.recv_bytes()))
    except Unreadable as error:
        answer = str(error)
    except MemoryError:
        answer = "reading it needs too much memory"
    connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    serve(_answer)
