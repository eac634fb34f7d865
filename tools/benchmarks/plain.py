"""Plain diffusers, as a careful user writes it: load, call the pipeline, encode, write; a record for each.

Two processes take rows from one queue, so that neither waits for the other at the end.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import diffusers
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media

Row = Mapping[str, Any]

FPS = 16.0
SHARED = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "max_sequence_length")


class PlainRenderer:
    """One process with one pipeline. `output` gets clips/; the caller writes the records."""

    def __init__(self, model: Path, output: Path) -> None:
        torch.set_num_threads(1)
        self.pipe = diffusers.WanPipeline.from_pretrained(model)
        self.pipe.set_progress_bar_config(disable=True)
        self._own = self.pipe.scheduler.config
        self._clips = output / "clips"
        self._clips.mkdir(parents=True, exist_ok=True)
        self._denoise_s = 0.0

    def render(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Render rows that differ in prompt and seed only; return their records."""
        first, started_at, started = rows[0], datetime.now(UTC), time.perf_counter()
        self.pipe.scheduler = getattr(diffusers, first["scheduler"]).from_config(self._own)
        self._denoise_s = 0.0
        with (
            intercept({"transformer": self.pipe.transformer}, self._timed),
            intercept({"scheduler": self.pipe.scheduler}, self._timed, method="step"),
        ):
            output = self.pipe(
                prompt=[row["prompt"] for row in rows],
                generator=[torch.Generator("cpu").manual_seed(row["seed"]) for row in rows],
                output_type="np",
                **{key: first[key] for key in SHARED},
            )
        records = [self._write(row, clip) for row, clip in zip(rows, output.frames, strict=True)]
        ours = {
            "worker": str(os.getpid()),
            "started_at": started_at,
            "denoise_s": self._denoise_s / len(rows),
            "total_s": (time.perf_counter() - started) / len(rows),
            "batch_size": float(len(rows)),
        }
        return [record | ours for record in records]

    def _write(self, row: Row, clip: Any) -> dict[str, Any]:
        frames = to_frames(clip)
        media = encode(frames, media=Media(), fps=FPS, metadata={"prompt": row["prompt"]})
        path = self._clips / f"{row['number']:05d}.mp4"
        path.write_bytes(media)
        return dict(row) | {
            "uri": str(path),
            "media_sha256": hashlib.sha256(media).hexdigest(),
            "frames_sha256": frames_sha256(frames),
        }

    def _timed(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            self._denoise_s += time.perf_counter() - started


def render_plain(table: Path, model: Path, output: Path, *, workers: int, batch: int = 1) -> None:
    """Render the table in so many processes, `batch` rows to a call; records go to output/records."""
    (output / "records").mkdir(parents=True)
    counter = get_context().Value("q", 0)
    with ProcessPoolExecutor(
        workers, mp_context=get_context(), initializer=_share, initargs=(counter,)
    ) as pool:
        for done in [pool.submit(_render_share, table, model, output, batch) for _ in range(workers)]:
            done.result()


def _share(counter: Any) -> None:
    global _counter
    _counter = counter


_counter: Any = None  # of the rows taken so far, shared by the processes


def _take(rows: list[Row], batch: int) -> list[Row]:
    with _counter.get_lock():
        first = _counter.value
        _counter.value = first + batch
    return rows[first : first + batch]


def _render_share(table: Path, model: Path, output: Path, batch: int) -> None:
    rows = pq.read_table(table).to_pylist()
    renderer = PlainRenderer(model, output)
    records: list[dict[str, Any]] = []
    while taken := _take(rows, batch):
        records += renderer.render(taken)
    if records:
        pq.write_table(pa.Table.from_pylist(records), output / "records" / f"{os.getpid()}.parquet")
