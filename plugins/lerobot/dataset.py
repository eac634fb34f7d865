"""Read the features, episodes and files of a LeRobot dataset, version 3, from its meta/.

The format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.api.errors import TableError, shown
from framefleet.api.texts import parse_json, without_folder

INFO, STATS = "meta/info.json", "meta/stats.json"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES = "meta/episodes"
_MOST_BYTES = 1 << 28  # per file of meta/; enough for a million episodes
_FIELD = re.compile(r"\{(video_key|(chunk_index|file_index)(?::0?(\d)d)?)\}")


def parquet_table(content: bytes) -> pa.Table:
    """Return a table as it was written, read without threads: see pipeline/outputs/parts/part_file.py."""
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def _plain_table(content: bytes, file: str) -> pa.Table:
    """Return a table as it was written, for an exact copy."""
    try:
        return parquet_table(content)
    except pa.ArrowException as error:
        raise TableError(f"{file} cannot be read: {error}", "download it again") from None


class Dataset:
    """Reads meta/ on demand. Methods raise TableError if the dataset is invalid."""

    def __init__(
        self,
        location: str,
        *,
        read: Callable[[str, int], bytes],
        paths_below: Callable[[str], Sequence[str]],
    ) -> None:
        """location: for messages. read: returns a file's first bytes. paths_below: lists a folder's files."""
        self.location, self._read, self._paths_below = location, read, paths_below

    @property
    def name(self) -> str:
        """Its name for others: of a folder on this machine, only the last part."""
        return without_folder(self.location.partition("://")[2])

    @cached_property
    def info(self) -> Mapping[str, Any]:
        try:
            info: Any = parse_json(self.content(INFO))
        except FileNotFoundError:
            problem = f"{self.location} is not a LeRobot dataset: it has no {INFO}"
            raise TableError(problem, "check the path") from None
        except ValueError as error:
            raise TableError(f"{self.location}: {INFO} is damaged: {error}", "download it again") from None
        info = info if isinstance(info, dict) else {}
        version = info.get("codebase_version")
        if not isinstance(version, str) or not version.startswith("v3."):
            fix = "convert it to v3.0 with lerobot: python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
            problem = f"{self.location} is a LeRobot dataset of version {shown(version)}, not v3.0"
            raise TableError(problem, fix)
        return dict(info)

    @cached_property
    def cameras(self) -> list[str]:
        """The names of its video features."""
        features = self.info.get("features")
        cameras = [
            name
            for name, feature in (features.items() if isinstance(features, Mapping) else ())
            if isinstance(feature, Mapping) and feature.get("dtype") == "video"
        ]
        if not cameras:
            problem = f"{self.location} has no videos: no feature has the type video"
            raise TableError(problem, "give another")
        return cameras

    @property
    def fps(self) -> float:
        fps = self.info.get("fps")
        if not isinstance(fps, int | float) or not 0 < fps <= 1000:
            raise TableError(f"{self.location}: fps in {INFO} is {shown(fps)}", "correct it")
        return float(fps)

    def episodes(self, table_of: Callable[[bytes, str], pa.Table] = _plain_table) -> Iterator[pa.Table]:
        """Yield the content of meta/episodes/, with one row per episode. table_of: opens a file of it."""
        paths = sorted(path for path in self._paths_below(_EPISODES) if path.endswith(".parquet"))
        files = [_EPISODES + path.rpartition(_EPISODES)[2] for path in paths]
        if not files:
            raise TableError(f"{self.location} has no episodes in {_EPISODES}/", "download it again")
        for file in files:
            yield table_of(self.content(file), file)

    def lengths(self) -> dict[int, int]:
        """Return the number of frames of each episode."""
        names = ["episode_index", "length"]
        try:
            rows = [row for table in self.episodes() for row in table.select(names).to_pylist()]
        except KeyError as error:
            problem = f"{self.location}: {_EPISODES}/ has no column {error}"
            raise TableError(problem, "create it again with lerobot") from None
        return {row["episode_index"]: row["length"] for row in rows}

    def content(self, file: str) -> bytes:
        """Return a file of meta/. May also raise FileNotFoundError."""
        content = self._read(file, _MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            problem = f"{self.location}: {file} has more than {_MOST_BYTES:,} bytes"
            raise TableError(problem, "split the dataset")
        return content

    def video_file(self, episode: Mapping[str, Any], camera: str) -> str:
        """Return the path of an episode's video. Raises KeyError, TypeError and ValueError."""
        numbers = {name: episode[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index")}
        return numbered_path(self.info.get("video_path") or VIDEO_PATH, numbers, camera)

    def data_file(self, episode: Mapping[str, Any]) -> str:
        """Return the path of an episode's states and actions. Raises KeyError, TypeError and ValueError."""
        numbers = {name: episode[f"data/{name}"] for name in ("chunk_index", "file_index")}
        return numbered_path(self.info.get("data_path") or DATA_PATH, numbers)


def numbered_path(template: str, numbers: Mapping[str, int], camera: str = "") -> str:
    """Fill the template of a path. Not with `str.format`, since templates are not trusted."""

    def value(field: re.Match[str]) -> str:
        return camera if field[1] == "video_key" else f"{int(numbers[field[2]]):0{field[3] or 0}d}"

    path = _FIELD.sub(value, template)
    if "{" in path or "}" in path:
        raise ValueError(f"{'video_path' if camera else 'data_path'} is {template[:100]!r}")
    return path
