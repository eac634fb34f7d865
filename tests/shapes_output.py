"""What a render job of shapes leaves, without rendering."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa

from framefleet import Store
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.plugins.demo.prepare import Size
from tests.rows import record
from tools.shapes.drawing import draw
from tools.shapes.scenes import Scene

CARRIED = pa.schema([(name, pa.string()) for name in ("shape", "color", "background", "motion", "language")])


def output_of(folder: Path, rows: list[dict[str, object]], *, shown: list[Scene] | None = None) -> Path:
    """Write what a render job of these rows would leave, if its model drew `shown`, or what was asked."""
    store = Store(str(folder))
    writer = PartWriter(store, "records", record_schema(CARRIED), run="r1")
    for number, row in enumerate(rows):
        asked = Scene(**{name: str(row[name]) for name in CARRIED.names[:4]})
        size = Size(*(int(str(row[name])) for name in Size._fields))
        frames = draw(shown[number] if shown else asked, seed=number, **size._asdict())
        keys = ("prompt", "guidance_scale", "num_inference_steps", "lora")
        arguments = {key: row[key] for key in keys if key in row}
        path = clip_path(f"{number:032x}", ".mkv")
        media = encode(frames, media=Media(format="mkv"), fps=8.0, metadata={})
        stored = {"media_sha256": hashlib.sha256(media).hexdigest(), "bytes": len(media)}
        places = {"path": path, "uri": f"/elsewhere/{path}"}
        done = record(number, **places, arguments=json.dumps(arguments), **size._asdict(), **stored)
        store.write(path, media)
        writer.add(pa.record_batch([[row[name]] for name in CARRIED.names], schema=CARRIED), values_of(done))
    writer.flush()
    return folder
