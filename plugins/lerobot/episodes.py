"""Read a LeRobot dataset as a table with a row for each episode and camera."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from framefleet.api.errors import TableError, shown
from framefleet.api.tables import TableSource
from framefleet.plugins.lerobot.dataset import Dataset

EPISODE, CAMERA = "episode", "camera"  # columns of the table and of records
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("video", pa.string()),
        ("fps", pa.float64()),
        (EPISODE, pa.int64()),
        (CAMERA, pa.string()),
        ("episode_frames", pa.int64()),
    ]
)


class Episodes(TableSource):
    """`table: lerobot://PATH`, or the name of a dataset of the hub."""

    together = (CAMERA,)

    def folder(self, place: str) -> str:
        """Return the place of a dataset: a folder of that name, a URL, or else the hub."""
        path = os.path.expanduser(place)
        if "://" in place or os.path.isdir(path) or not _HUB_NAME.fullmatch(place):
            return path
        return f"hf://datasets/{place}"

    def rows(self, filesystem: Any, path: str, location: str) -> pa.Table:
        """Return a row for each episode and camera, with task, part of a video, rate and numbers."""
        dataset = Dataset(
            location,
            read=lambda file, count: filesystem.cat_file(f"{path}/{file}", 0, count),
            paths_below=lambda folder: filesystem.find(f"{path}/{folder}"),
        )
        cameras, fps = dataset.cameras, dataset.fps
        rows = []
        for table in dataset.episodes():
            names = [name for name in table.schema.names if not name.startswith("stats/")]
            for episode in table.select(names).to_pylist():
                for camera in cameras:
                    try:
                        rows.append({**_row(dataset, episode, camera), "fps": fps})
                    except (KeyError, TypeError, ValueError) as error:
                        number = shown(episode.get("episode_index"))
                        problem = f"{location}: episode {number} has no valid video of {camera}: {error}"
                        raise TableError(problem, "create its meta/episodes/ again with lerobot") from None
        rows.sort(key=lambda row: row[EPISODE])
        return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _row(dataset: Dataset, episode: Mapping[str, Any], camera: str) -> dict[str, Any]:
    """Return a row. Raises KeyError, TypeError and ValueError."""
    begin, end = (float(episode[f"videos/{camera}/{name}_timestamp"]) for name in ("from", "to"))
    if not (math.isfinite(begin) and math.isfinite(end) and 0 <= begin < end):
        raise ValueError(f"it lasts from {begin:g} s to {end:g} s")
    tasks = episode["tasks"]
    return {
        "prompt": tasks if isinstance(tasks, str) else "; ".join(map(str, tasks)),
        "video": f"{dataset.video_file(episode, camera)}#t={begin:.9f},{end:.9f}",
        EPISODE: int(episode["episode_index"]),
        CAMERA: camera,
        "episode_frames": int(episode["length"]),
    }
