"""Export a LeRobot dataset with clips instead of its videos.

Each clip is a separate file, and all clips are written first. Files that name them follow, with
meta/info.json last, without which no reader accepts a folder as a dataset.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from threading import BoundedSemaphore
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.api.clips import decode, inputs_in, open_media
from framefleet.api.commands import Watch
from framefleet.api.errors import JobError, count_text, names_text
from framefleet.api.exports import Selection, ShardWriter, Target, plain_cell
from framefleet.api.jobs import claim_of
from framefleet.api.outputs import RECORDS, Output, Store, rows_of, told_arguments
from framefleet.api.texts import public_url
from framefleet.plugins.lerobot.dataset import VIDEO_PATH, Dataset, numbered_path, parquet_table
from framefleet.plugins.lerobot.dataset_files import Augmented, file_numbers, write_dataset
from framefleet.plugins.lerobot.episodes import Episodes
from framefleet.plugins.lerobot.looks import looks_in, without
from framefleet.plugins.lerobot.statistics import histogram_of

_SCHEME = "lerobot"
_NOTES = ".framefleet/clips"
_DECODING = BoundedSemaphore(4)  # clips in memory; each takes some hundred megabytes
_TOLERANCE_S = 1e-4  # of a frame's timestamp, as in LeRobot
_NOTED = pa.schema(
    [
        ("row_id", pa.string()),
        ("histogram", pa.binary()),  # int64 (3, 256)
        ("codec", pa.string()),
        ("pix_fmt", pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
    ]
)


class EpisodeShard(ShardWriter):
    """Some clips, each in a file of videos/, and notes about them."""

    read_by = "read it with lerobot.datasets.lerobot_dataset.LeRobotDataset"

    @staticmethod
    def path_of(name: str) -> str:
        return f"{_NOTES}/{name}.parquet"

    @classmethod
    def prepare(
        cls, selection: Selection, output: Output, options: Mapping[str, Any], watch: Watch
    ) -> Augmented:
        dataset, source = _source_of(output, options)
        looks, num_left = looks_in(selection, dataset, output)
        if num_left:
            watch.say(f"note: left out: {count_text(num_left, 'look')} without clips of all cameras")
        selection.keep_only(sorted(row_id for look in looks for row_id in look.clips.values()))
        files = {
            row_id: (camera, number)
            for number, look in enumerate(looks)
            for camera, row_id in look.clips.items()
        }
        return Augmented(dataset=dataset, source=source, looks=looks, files=files)

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        notes = [*self.target.copiers.map(self._write_clip, rows_of(rows, RECORDS), clips)]
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.file, _NOTED, compression="zstd")
        self.writer.write_table(pa.Table.from_pylist(notes, _NOTED))

    def _write_clip(self, row: Mapping[str, Any], clip: bytes) -> dict[str, Any]:
        """Write a clip in place of its episode's video; return notes about it."""
        augmented: Augmented = self.target.prepared
        note = _stream_of(clip, row["row_id"], augmented.dataset.fps)
        camera, number = augmented.files[row["row_id"]]
        self.target.place.write(numbered_path(VIDEO_PATH, file_numbers(number), camera), clip)
        with _DECODING:
            histogram = histogram_of(decode(clip))
        return {"row_id": row["row_id"], "histogram": histogram.tobytes(), **note}

    @classmethod
    def complete(
        cls, selection: Selection, target: Target, lost: Collection[str | None], watch: Watch
    ) -> None:
        augmented: Augmented = target.prepared
        looks = without(augmented.looks, lost)
        if not looks:
            raise JobError("every look has a damaged clip", "run `framefleet repair` on the output")
        notes = {
            note["row_id"]: note
            for path in target.place.list(_NOTES)
            for note in parquet_table(target.place.read(path)).to_pylist()
        }
        write_dataset(replace(augmented, looks=looks), notes, _provenance(selection), target)
        num_of_source = len({look.episode for look in looks})
        watch.say(f"{count_text(len(looks), 'episode')} of {num_of_source:,} in {augmented.dataset.location}")
        if as_before := set(augmented.dataset.cameras) - set(augmented.cameras):
            watch.say(f"copied from the source, as no clips were chosen: {names_text(sorted(as_before))}")


def _source_of(output: Output, options: Mapping[str, Any]) -> tuple[Dataset, Store]:
    table = claim_of(output.store).job.table or ""
    scheme, _, place = table.partition("://")
    if scheme != _SCHEME:
        has = f"the table {table}, which is not a LeRobot dataset" if table else "no table"
        problem = f"the job of {output.url} has {has}"
        raise JobError(problem, "render a job with `table: lerobot://...`")
    store = Store(Episodes().folder(place), options)
    return Dataset(public_url(table), read=store.read, paths_below=store.list), store


def _stream_of(clip: bytes, row_id: str, fps: float) -> dict[str, Any]:
    """Return codec, pixel format and size. Raises JobError if frames are not shown at this rate."""
    with open_media(clip) as file:
        stream = file.streams.video[0]
        times = sorted(float(one.pts * one.time_base) for one in file.demux(stream) if one.pts is not None)
        if any(abs(time - number / fps) > _TOLERANCE_S for number, time in enumerate(times)):
            problem = f"the clip of row {row_id} does not show {fps:g} frames per second from 0 s on"
            raise JobError(problem, "leave it out with --where, and render it again")
        context = stream.codec_context
        return {
            **{"codec": context.codec.canonical_name, "pix_fmt": str(context.pix_fmt)},
            **{"height": context.height, "width": context.width},
        }


def _provenance(selection: Selection) -> dict[str, str]:
    """Return the provenance and columns of each clip as JSON, by row_id."""
    names = dict.fromkeys([*selection.columns, "media_sha256", "frames_sha256", "model_digest"])
    texts = {}
    for table in selection.rows("arguments", "frames_sha256", "model_digest"):
        for row in rows_of(table, RECORDS):
            arguments = {name: inputs_in(value) for name, value in told_arguments(row).items()}
            values = {name: row[name] for name in names if not arguments.get(name)}
            values["inputs_sha256"] = [part["sha256"] for parts in arguments.values() for part in parts]
            texts[row["row_id"]] = json.dumps(plain_cell(values), ensure_ascii=False)
    return texts
