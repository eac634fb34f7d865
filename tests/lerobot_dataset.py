"""A small LeRobot dataset, version 3: three episodes of two cameras, by the format that LeRobot publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.test_video_parts import RATE, shared

CAMERAS = ("observation.images.front", "observation.images.wrist")
LENGTHS = (9, 5, 13)
TASKS = ["put the cube away", "wave"]
_NUMBERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_STATISTICS = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std, "q50": np.median}


def dataset(folder: Path, **info: Any) -> Path:
    """Write it. info: of meta/info.json, in place of what is right."""
    video = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
    video["info"] = {"video.height": 48, "video.width": 64, "video.codec": "h264", "video.fps": RATE}
    features: dict[str, Any] = dict.fromkeys(CAMERAS, video)
    for name in ("observation.state", "action"):
        features[name] = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    for name in _NUMBERS:
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    totals = {"total_episodes": len(LENGTHS), "total_frames": sum(LENGTHS), "total_tasks": len(TASKS)}
    paths = {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    paths["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    written = {"codebase_version": "v3.0", "robot_type": "arm", "fps": RATE, "features": features, **totals}
    written |= {"chunks_size": 1000, "splits": {"train": f"0:{len(LENGTHS)}"}, **paths, **info}
    for name in ("meta/episodes", "data", *(f"videos/{camera}" for camera in CAMERAS)):
        (folder / name / "chunk-000").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(written))
    tasks = pd.DataFrame({"task_index": range(len(TASKS))}, index=TASKS)
    tasks.to_parquet(folder / "meta/tasks.parquet")
    starts = np.cumsum([0, *LENGTHS])
    frames = _frames(starts)
    pq.write_table(frames, folder / "data/chunk-000/file-000.parquet")
    (folder / "meta/stats.json").write_text(json.dumps(_statistics(frames)))
    episodes = []
    for number, length in enumerate(LENGTHS):
        start, end = starts[number : number + 2].tolist()
        episode: dict[str, Any] = {
            "episode_index": number,
            "tasks": TASKS[: 1 + number % 2],
            "length": length,
        }
        episode |= {"dataset_from_index": start, "dataset_to_index": end}
        for name in ("data", "meta/episodes", *(f"videos/{camera}" for camera in CAMERAS)):
            episode |= {f"{name}/chunk_index": 0, f"{name}/file_index": 0}
        for camera in CAMERAS:
            episode[f"videos/{camera}/from_timestamp"] = start / RATE
            episode[f"videos/{camera}/to_timestamp"] = end / RATE
        for feature, statistics in _statistics(frames.slice(start, length)).items():
            episode |= {f"stats/{feature}/{name}": value for name, value in statistics.items()}
        episodes.append(episode)
    pq.write_table(pa.Table.from_pylist(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    for name, camera in zip(("h264 with B-frames", "one key frame"), CAMERAS, strict=True):
        content = shared(name, sum(LENGTHS))
        (folder / f"videos/{camera}/chunk-000/file-000.mp4").write_bytes(content)
    return folder


def _frames(starts: Any) -> pa.Table:
    """Return a row for each frame. States and actions are any numbers."""
    random = np.random.default_rng(7)
    places = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    episodes, numbers = map(np.array, zip(*places, strict=True))
    columns: dict[str, Any] = {
        name: pa.FixedSizeListArray.from_arrays(
            pa.array(random.standard_normal(2 * len(places)).astype(np.float32)), 2
        )
        for name in ("observation.state", "action")
    }
    columns |= {"timestamp": (numbers / RATE).astype(np.float32), "frame_index": numbers}
    columns |= {"episode_index": episodes, "index": np.arange(len(places)), "task_index": episodes % 2}
    return pa.table(columns)


def _statistics(frames: pa.Table) -> dict[str, dict[str, Any]]:
    """Return those of numbers as they are, and any of pixels."""
    statistics: dict[str, dict[str, Any]] = {}
    for name in frames.schema.names:
        values = np.array(frames[name].to_pylist()).reshape(len(frames), -1)
        of_name = {key: measure(values, axis=0).tolist() for key, measure in _STATISTICS.items()}
        statistics[name] = of_name | {"count": [len(frames)]}
    for camera in CAMERAS:
        statistics[camera] = {name: [[[0.5]]] * 3 for name in _STATISTICS} | {"count": [len(frames)]}
    return statistics
