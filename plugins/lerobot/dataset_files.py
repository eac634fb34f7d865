"""Write the files of an exported dataset besides its clips: frames, episodes, statistics and provenance.

Everything but rendered videos is copied from the source; only the numbers of episodes and frames change.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import framefleet
from framefleet.api.errors import TableError, count_text
from framefleet.api.exports import Target
from framefleet.api.outputs import Store
from framefleet.api.texts import parse_json
from framefleet.plugins.lerobot.dataset import DATA_PATH, INFO, STATS, VIDEO_PATH, Dataset, numbered_path
from framefleet.plugins.lerobot.looks import Look
from framefleet.plugins.lerobot.statistics import USUAL_STATISTICS, Histogram, pixel_statistics, statistics_of

PROVENANCE = "provenance.json"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_NUM_IN_CHUNK = 1000  # files per chunk, as in LeRobot
_DATA_BYTES = 100 << 20  # per file of data/, as in LeRobot


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """The exported part of a dataset. files: camera and file number of each clip, by row_id."""

    dataset: Dataset
    source: Store
    looks: Sequence[Look]
    files: Mapping[str, tuple[str, int]]

    @property
    def cameras(self) -> list[str]:
        """The cameras that were rendered."""
        return sorted(self.looks[0].clips)


def file_numbers(number: int) -> dict[str, int]:
    return dict(zip(("chunk_index", "file_index"), divmod(number, _NUM_IN_CHUNK), strict=True))


def write_dataset(
    augmented: Augmented,
    notes: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, str],
    target: Target,
) -> None:
    """Write the dataset's files besides its clips. notes, provenance: of clips, by row_id.

    A place that already has these episodes is left alone. If it has others, because clips were damaged, it is
    not a valid dataset until all is written. Raises TableError for a damaged source.
    """
    place, file = target.place, target.scratch / PROVENANCE
    _write_provenance(file, augmented, provenance)
    if place.exists(INFO) and place.exists(PROVENANCE) and place.read(PROVENANCE) == file.read_bytes():
        return
    place.delete(INFO)
    place.delete_all("data")
    try:
        episodes = _episodes_of(augmented)
        _copy_files(augmented, episodes, target)
        starts = np.cumsum([0, *episodes["length"].to_pylist()])
        data_files = _write_frames(augmented, episodes, starts, target)
        columns = {**_episode_columns(augmented, data_files, starts)}
        columns |= _episode_statistics(augmented, episodes, starts, notes)
        table = target.scratch / "table.parquet"
        pq.write_table(_with_columns(episodes, columns), table)
        place.upload(_EPISODES, table)
        _write_json(STATS, _all_statistics(augmented, starts, notes), target)
        place.upload(PROVENANCE, file)
        _write_json(INFO, _info_of(augmented, starts, notes), target)
    except (KeyError, TypeError, ValueError, FileNotFoundError, pa.ArrowException) as error:
        problem = f"{augmented.dataset.location} cannot be copied: {type(error).__name__}: {error}"
        raise TableError(problem, "download it again, or create it again with lerobot") from error


def _write_provenance(file: Path, augmented: Augmented, provenance: Mapping[str, str]) -> None:
    head = json.dumps({"framefleet": framefleet.__version__, "source": augmented.dataset.name})
    with open(file, "w", encoding="utf-8") as lines:
        lines.write(f'{head[:-1]}, "episodes": [')
        for number, look in enumerate(augmented.looks):
            clips = ", ".join(
                f"{json.dumps(camera)}: {provenance[row_id]}" for camera, row_id in sorted(look.clips.items())
            )
            numbers = f'"episode_index": {number}, "source_episode_index": {look.episode}'
            lines.write(f'{"," * (number > 0)}\n{{{numbers}, "clips": {{{clips}}}}}')
        lines.write("\n]}\n")


def _episodes_of(augmented: Augmented) -> pa.Table:
    """Return the source's row for each exported episode."""
    wanted = pa.array(sorted({look.episode for look in augmented.looks}))
    tables = [
        table.filter(pc.is_in(table["episode_index"], wanted)) for table in augmented.dataset.episodes()
    ]
    table = pa.concat_tables(tables, promote_options="default")
    places = {number: place for place, number in enumerate(table["episode_index"].to_pylist())}
    return table.take(pa.array([places[look.episode] for look in augmented.looks]))


def _copy_files(augmented: Augmented, episodes: pa.Table, target: Target) -> None:
    """Copy other files of meta/, and the videos of cameras that were not rendered."""
    dataset, source, place = augmented.dataset, augmented.source, target.place
    for path in source.list("meta"):
        if path not in (INFO, STATS) and not path.startswith("meta/episodes/"):
            place.write(path, dataset.content(path))
    copy = target.scratch / "video"
    for camera in dataset.cameras:
        if camera in augmented.cameras:
            continue
        names = [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index")]
        for row in episodes.select(names).group_by(names).aggregate([]).to_pylist():
            numbers = {name.rpartition("/")[2]: number for name, number in row.items()}
            to = numbered_path(VIDEO_PATH, numbers, camera)
            if not place.exists(to):
                source.download(dataset.video_file(row, camera), copy)
                place.upload(to, copy)


def _write_frames(
    augmented: Augmented, episodes: pa.Table, starts: npt.NDArray[np.int64], target: Target
) -> list[int]:
    """Write states and actions with new episode and frame numbers; return the file number per episode."""
    copy, file = target.scratch / "source.parquet", target.scratch / "data.parquet"
    copied, files, writer, num_bytes = "", list[int](), None, 0
    numbers = episodes.select(["data/chunk_index", "data/file_index"]).to_pylist()
    frames, of_episode = pa.table({}), None
    for number, look in enumerate(augmented.looks):
        path = augmented.dataset.data_file(numbers[number])
        if path != copied:
            augmented.source.download(path, copy)
            copied = path
        if look.episode != of_episode:
            frames, of_episode = (
                pq.read_table(copy, filters=[("episode_index", "=", look.episode)]),
                look.episode,
            )
        start, end = starts[number : number + 2].tolist()
        if len(frames) != end - start:
            raise ValueError(
                f"{path} has {len(frames):,} of {count_text(end - start, 'frame')} of episode {look.episode}"
            )
        columns = {"episode_index": [number] * len(frames), "index": range(start, end)}
        own = _with_columns(frames, columns)
        writer = writer or pq.ParquetWriter(file, own.schema)
        writer.write_table(own)
        files.append(files[-1] + (num_bytes == 0) if files else 0)
        num_bytes += own.nbytes
        if num_bytes >= _DATA_BYTES or number == len(augmented.looks) - 1:
            writer.close()
            target.place.upload(numbered_path(DATA_PATH, file_numbers(files[-1])), file)
            writer, num_bytes = None, 0
    return files


def _episode_columns(
    augmented: Augmented, data_files: Sequence[int], starts: npt.NDArray[np.int64]
) -> dict[str, Sequence[Any]]:
    """Return the numbers of episodes, frames and files that differ from the source."""
    num, fps = len(augmented.looks), augmented.dataset.fps
    columns: dict[str, Sequence[Any]] = {
        "episode_index": range(num),
        "dataset_from_index": starts[:-1].tolist(),
        "dataset_to_index": starts[1:].tolist(),
        **{f"meta/episodes/{name}": [0] * num for name in file_numbers(0)},
    }
    for name in file_numbers(0):
        columns[f"data/{name}"] = [file_numbers(file)[name] for file in data_files]
        for camera in augmented.cameras:
            files = [augmented.files[look.clips[camera]][1] for look in augmented.looks]
            columns[f"videos/{camera}/{name}"] = [file_numbers(file)[name] for file in files]
    for camera in augmented.cameras:
        columns[f"videos/{camera}/from_timestamp"] = [0.0] * num
        columns[f"videos/{camera}/to_timestamp"] = (np.diff(starts) / fps).tolist()
    return columns


def _episode_statistics(
    augmented: Augmented,
    episodes: pa.Table,
    starts: npt.NDArray[np.int64],
    notes: Mapping[str, Mapping[str, Any]],
) -> Mapping[str, list[Any]]:
    """Return the statistics of each episode that differ from the source."""
    columns: dict[str, list[Any]] = defaultdict(list)

    def names_of(feature: str) -> list[str]:
        names = [name.rpartition("/") for name in episodes.schema.names]
        return [name for before, _, name in names if before == f"stats/{feature}"]

    for number, look in enumerate(augmented.looks):
        start, end = starts[number : number + 2].tolist()
        once = np.ones(end - start, np.int64)
        of_features = {
            "episode_index": _listed(
                statistics_of(np.full(1, number), once.sum(keepdims=True), names_of("episode_index"))
            ),
            "index": _listed(statistics_of(np.arange(start, end), once, names_of("index"))),
        }
        for camera in augmented.cameras:
            histogram = _histogram(notes[look.clips[camera]])
            of_features[camera] = pixel_statistics(histogram, end - start, names_of(camera))
        for feature, statistics in of_features.items():
            for name, value in statistics.items():
                columns[f"stats/{feature}/{name}"].append(value)
    return columns


def _all_statistics(
    augmented: Augmented, starts: npt.NDArray[np.int64], notes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the source's statistics, updated for pixels and numbers that have changed."""
    try:
        statistics = dict(parse_json(augmented.dataset.content(STATS)))
    except FileNotFoundError:
        statistics = {}
    lengths = np.diff(starts)
    values = {"episode_index": (np.arange(len(lengths)), lengths)}
    values["index"] = np.arange(starts[-1]), np.ones(starts[-1], np.int64)
    for name in values.keys() & statistics.keys():
        statistics[name] = _listed(statistics_of(*values[name], statistics[name]))
    for camera in augmented.cameras:
        histogram = np.sum([_histogram(notes[look.clips[camera]]) for look in augmented.looks], axis=0)
        names = [*statistics.get(camera, USUAL_STATISTICS)]
        statistics[camera] = pixel_statistics(histogram, int(starts[-1]), names)
    return statistics


def _info_of(
    augmented: Augmented, starts: npt.NDArray[np.int64], notes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    info, num = augmented.dataset.info, len(augmented.looks)
    features = dict(info["features"])
    for camera in augmented.cameras:
        note, feature = notes[augmented.looks[0].clips[camera]], dict(features[camera])
        shape = [*feature["shape"]]
        first = int(shape[0] <= 4)  # 1 if channels come first
        shape[first : first + 2] = note["height"], note["width"]
        about = {f"video.{name}": note[name] for name in ("height", "width", "codec", "pix_fmt")}
        features[camera] = {**feature, "shape": shape, "info": {**(feature.get("info") or {}), **about}}
    totals = {"total_episodes": num, "total_frames": int(starts[-1]), "splits": {"train": f"0:{num}"}}
    return {**info, **totals, "data_path": DATA_PATH, "video_path": VIDEO_PATH, "features": features}


def _histogram(note: Mapping[str, Any]) -> Histogram:
    return np.frombuffer(note["histogram"], np.int64).reshape(3, 256)


def _listed(statistics: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the statistics of a number in LeRobot's shape: (1,)."""
    return {name: [value] for name, value in statistics.items()}


def _with_columns(table: pa.Table, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return a table with new cells in these columns, with the same types."""
    for name, cells in columns.items():
        place = table.schema.get_field_index(name)
        if place < 0:
            table = table.append_column(name, pa.array(cells))
        else:
            field = table.schema.field(place)
            table = table.set_column(place, field, pa.array(cells, field.type))
    return table


def _write_json(path: str, content: Mapping[str, Any], target: Target) -> None:
    target.place.write(path, json.dumps(content, indent=4, ensure_ascii=False).encode())
