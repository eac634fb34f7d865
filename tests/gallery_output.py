"""An output for galleries: real small clips, with records and failures of what prompts people may have."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from framefleet import Clip, Request, Store
from framefleet.pipeline.outputs.encode_clip import encode_input, store_clip
from framefleet.pipeline.outputs.file_step import FileStep, StepInput, added_columns
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.layout import FAILURES, RECORDS
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, record_schema, values_of
from tests.rows import NOON, failure

# What prompts may hold that must do nothing.
HOSTILE = (
    '<img src=x onerror="document.title=1">',
    "</script><script>document.title=1</script>",
    "\u2028'); document.title=1; //",
    '" onmouseover="document.title=1',
    "javascript:document.title=1",
    "\u202eback to front\u2066",
)
CARRIED = pa.schema([("label", pa.string()), ("sharpness", pa.float64())])


def clip_of(number: int, arguments: Mapping[str, Any], *, seed: int) -> Clip:
    """Return a clip of nine frames: a square that moves, in the colour of its number."""
    frames = np.full((9, 48, 64, 3), (number * 37 % 200, number * 91 % 200, number * 53 % 200), np.uint8)
    for time, frame in enumerate(frames):
        frame[16:32, 4 + 5 * time : 20 + 5 * time] = 255
    return Clip(
        row_id=f"{number:032x}",
        request=Request(arguments=dict(arguments), seed=seed),
        pixels=to_pixels(frames),
        native_fps=8.0,
        model="folder",
        model_digest="0" * 64,
        numerics={},
        seconds={"encode_s": 0.0, "denoise_s": 0.1, "decode_s": 0.0},
        batch_size=1.0,
        peak_memory_bytes=0,
        environment={"device": "cpu"},
        started_at=NOON,
    )


def write_output(
    folder: Path | str,
    rows: Sequence[Mapping[str, Any]],
    *,
    media: Media | None = None,
    steps: Mapping[str, FileStep] | None = None,
    failures: Sequence[str] = (),
    run: str = "r1",
    positions: Sequence[int] | None = None,
    change: Callable[[Clip], Clip] = lambda clip: clip,
) -> Store:
    """Write what a job of these rows leaves. rows: arguments, and `seed`. failures: their messages.

    change: makes other clips of those that move. positions: of the rows in the table.
    """
    store = Store(str(folder))
    records = PartWriter(
        store, RECORDS, record_schema(CARRIED, added=added_columns(steps or {}, [])), run=run
    )
    for number, row in enumerate(rows):
        arguments = {name: value for name, value in row.items() if name not in ("seed", *CARRIED.names)}
        clip = change(clip_of(number, arguments, seed=row.get("seed", number)))
        of = StepInput(clip=clip, media=media or Media())
        encoded = encode_input(of, (steps or {}).values())
        record = replace(
            store_clip(store, encoded), row_indices=(positions[number] if positions else number,)
        )
        carried = [[row.get("label", f"row {number}")], [row.get("sharpness", number / 10)]]
        records.add(pa.record_batch(carried, schema=CARRIED), values_of(record) | of.values)
    records.flush()
    failed = PartWriter(store, FAILURES, FAILURE_FIELDS, run=run)
    for number, message in enumerate(failures):
        arguments = json.dumps({"prompt": f"failed {number}"})
        row_id = f"{2**64 + number:032x}"  # of no record
        failed.add(None, values_of(failure(row_id=row_id, message=message, arguments=arguments)))
    failed.flush()
    store.write("job.json", b'{"job": {}}')
    return store


_RUN = """
const [folder, code, ...files] = process.argv.slice(1);
const context = require("vm").createContext({ console, localStorage: { getItem: () => null },
  document: { querySelector: () => null }, window: { addEventListener() {} } });
const run = (text) => require("vm").runInContext(text, context);
const read = (file) => run(require("fs").readFileSync(`${folder}/${file}`, "utf-8"));
run(`Map.groupBy ??= (values, by) => {
  const map = new Map(); // Node.js 20 has no such function
  for (const value of values) map.set(by(value), [...(map.get(by(value)) ?? []), value]);
  return map;
}`);
files.forEach(read);
context.load = async (file) => read(file);
run(`(async () => { ${code} })()`).catch((error) => { console.error(error.message); process.exitCode = 1; });
"""


def run_scripts(folder: Path, files: Collection[str], code: str) -> str:
    """Return what the code prints after these scripts of a gallery. Raises ValueError for its error."""
    if (node := shutil.which("node")) is None:
        pytest.skip("needs Node.js: no node is on PATH")
    ran = subprocess.run(
        [node, "-e", _RUN, str(folder), code, *files], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise ValueError(ran.stderr.strip())
    return ran.stdout


def exported_picks(output: Path, row_ids: Collection[str]) -> str:
    """Return the picks.jsonl of an output with a gallery. row_ids: of the rows with stars."""
    code = f"""
        await load("manifest.js");
        const {{ tables, block_rows: blockRows, identity }} = framefleet.latest;
        const picks = new Picks(identity);
        for (const rowId of {json.dumps(list(row_ids))}) picks.of.set(rowId, {{ stars: 5, note: "" }});
        console.log(await picksTable(new Table(tables.records, blockRows), picks));
    """
    return run_scripts(output / "gallery", ["data.js", "query.js", "picks.js"], code)
