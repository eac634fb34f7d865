"""Read a LeRobot dataset as a table with a row for each episode and camera."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from framefleet.api.clips import Request, inputs_in
from framefleet.api.errors import TableError, count_text, shown
from framefleet.api.models import FRAME_PARAMETERS
from framefleet.api.tables import TableSource, read_parquet
from framefleet.plugins.lerobot.dataset import Dataset

EPISODE, CAMERA = "episode", "camera"  # columns of the table and of records
_FRAMES = "episode_frames"
_KEEPING_FRAMES = ("generate", "video_to_video")  # recipes whose clips have as many frames as the row says
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("video", pa.string()),
        ("fps", pa.float64()),
        (EPISODE, pa.int64()),
        (CAMERA, pa.string()),
        (_FRAMES, pa.int64()),
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
        for table in dataset.episodes(read_parquet):
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

    def remark(self, cells: Mapping[str, Any], request: Request) -> str | None:
        """Return that a row's video or clip has not as many frames as its episode."""
        if (wanted := cells.get(_FRAMES)) is None:
            return None
        arguments = request.arguments
        videos = [video for value in arguments.values() for video in inputs_in(value)]
        of_video = next((video["num_frames"] for video in videos if "num_frames" in video), wanted)
        asked = (arguments[name] for name in FRAME_PARAMETERS if arguments.get(name) is not None)
        of_clip = next(asked, of_video) if request.recipe in _KEEPING_FRAMES else wanted
        for what, num_frames in (("video", of_video), ("clip", of_clip)):
            if num_frames != wanted:
                frames = count_text(num_frames, "frame")
                return f"its {what} has {frames}, but episode {cells.get(EPISODE)} has {wanted:,}"
        return None


def _row(dataset: Dataset, episode: Mapping[str, Any], camera: str) -> dict[str, Any]:
    """Return a row. Raises KeyError, TypeError and ValueError."""
    begin, end = (float(episode[f"videos/{camera}/{name}_timestamp"]) for name in ("from", "to"))
    # An episode without frames is refused with its row.
    if not (math.isfinite(begin) and math.isfinite(end) and 0 <= begin <= end):
        raise ValueError(f"it lasts from {begin:g} s to {end:g} s")
    tasks = episode["tasks"]
    return {
        "prompt": tasks if isinstance(tasks, str) else "; ".join(map(str, tasks or ())) or None,
        "video": f"{dataset.video_file(episode, camera)}#t={begin:.9f},{end:.9f}",
        EPISODE: int(episode["episode_index"]),
        CAMERA: camera,
        _FRAMES: int(episode["length"]),
    }
