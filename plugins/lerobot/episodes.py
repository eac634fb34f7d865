"""From a LeRobot dataset, version 3, to a table: a row for each episode and camera.

The format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.api.errors import TableError, shown
from framefleet.api.tables import TableSource
from framefleet.api.texts import parse_json

_INFO = "meta/info.json"
_MOST_BYTES = 1 << 28  # of a file of meta/, of which a million episodes take less
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_FIELD = re.compile(r"\{(video_key|(chunk_index|file_index)(?::0?(\d)d)?)\}")
_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("video", pa.string()),
        ("fps", pa.float64()),
        ("episode", pa.int64()),
        ("camera", pa.string()),
        ("episode_frames", pa.int64()),
    ]
)


class Episodes(TableSource):
    """`table: lerobot://PATH`, or the name of a dataset of the hub."""

    def folder(self, place: str) -> str:
        """Return where a dataset is: a folder of that name, a URL, or else the hub."""
        path = os.path.expanduser(place)
        if "://" in place or os.path.isdir(path) or not _HUB_NAME.fullmatch(place):
            return path
        return f"hf://datasets/{place}"

    def rows(self, filesystem: Any, path: str, location: str) -> pa.Table:
        """Return a row for each episode and camera: task, part of a video, rate and numbers."""
        info = _info(filesystem, path, location)
        cameras = [
            name
            for name, feature in (info.get("features") or {}).items()
            if isinstance(feature, Mapping) and feature.get("dtype") == "video"
        ]
        if not cameras:
            raise TableError(f"{location} has no videos: no feature is of the type video", "give another")
        fps = info.get("fps")
        if not isinstance(fps, int | float) or not 0 < fps <= 1000:
            raise TableError(f"{location}: fps in {_INFO} is {shown(fps)}", "correct it")
        template = info.get("video_path") or _VIDEO_PATH
        rows = []
        for episode in _episodes(filesystem, path, location):
            for camera in cameras:
                try:
                    rows.append(_row(episode, camera, template, float(fps)))
                except (KeyError, TypeError, ValueError) as error:
                    number = shown(episode.get("episode_index"))
                    problem = f"{location}: episode {number} says nothing of use about {camera}: {error}"
                    raise TableError(problem, "make its meta/episodes/ again with lerobot") from None
        rows.sort(key=lambda row: row["episode"])
        return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _info(filesystem: Any, path: str, location: str) -> Mapping[str, Any]:
    try:
        info: Any = parse_json(_content(filesystem, f"{path}/{_INFO}", location))
    except FileNotFoundError:
        raise TableError(f"{location} is no LeRobot dataset: it has no {_INFO}", "check the path") from None
    except ValueError as error:
        raise TableError(f"{location}: {_INFO} is damaged: {error}", "download it again") from None
    info = info if isinstance(info, dict) else {}
    version = info.get("codebase_version")
    if not isinstance(version, str) or not version.startswith("v3."):
        fix = "convert it to v3.0 with lerobot: python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
        raise TableError(f"{location} is a LeRobot dataset of version {shown(version)}, not v3.0", fix)
    return dict(info)


def _episodes(filesystem: Any, path: str, location: str) -> Iterator[Mapping[str, Any]]:
    """Yield what meta/episodes/ says of each episode."""
    files = sorted(one for one in filesystem.find(f"{path}/meta/episodes") if one.endswith(".parquet"))
    if not files:
        raise TableError(f"{location} has no episodes in meta/episodes/", "download it again")
    for file in files:
        try:
            table = pq.read_table(io.BytesIO(_content(filesystem, file, location)))
        except pa.ArrowException as error:
            raise TableError(f"{file} cannot be read: {error}", "download it again") from None
        names = [name for name in table.schema.names if not name.startswith("stats/")]
        yield from table.select(names).to_pylist()


def _content(filesystem: Any, file: str, location: str) -> bytes:
    content: bytes = filesystem.cat_file(file, 0, _MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise TableError(f"{location}: {file} has more than {_MOST_BYTES:,} bytes", "split the dataset")
    return content


def _row(episode: Mapping[str, Any], camera: str, template: str, fps: float) -> dict[str, Any]:
    """Return a row. Raises KeyError, TypeError and ValueError."""
    about = {name: episode[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index")}
    begin, end = (float(episode[f"videos/{camera}/{name}_timestamp"]) for name in ("from", "to"))
    if not (math.isfinite(begin) and math.isfinite(end) and 0 <= begin < end):
        raise ValueError(f"it is from {begin:g} s to {end:g} s")
    tasks = episode["tasks"]
    return {
        "prompt": tasks if isinstance(tasks, str) else "; ".join(map(str, tasks)),
        "video": f"{_file(template, camera, about)}#t={begin:.9f},{end:.9f}",
        "fps": fps,
        "episode": int(episode["episode_index"]),
        "camera": camera,
        "episode_frames": int(episode["length"]),
    }


def _file(template: str, camera: str, about: Mapping[str, int]) -> str:
    """Return the file of a camera. Not by `str.format`: the template is a stranger's."""

    def value(field: re.Match[str]) -> str:
        return camera if field[1] == "video_key" else f"{int(about[field[2]]):0{field[3] or 0}d}"

    path = _FIELD.sub(value, template)
    if "{" in path or "}" in path:
        raise ValueError(f"video_path is {template[:100]!r}")
    return path
