"""Group records into looks: one clip per camera of an episode, with the same seed, prompt and settings.

A look becomes an episode of the exported dataset. Looks that lack a camera are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from framefleet.api.clips import inputs_in
from framefleet.api.errors import JobError, count_text
from framefleet.api.exports import Selection
from framefleet.api.outputs import RECORDS, Output, recorded_path, rows_of, told_arguments
from framefleet.api.texts import canonical_json
from framefleet.plugins.lerobot.dataset import Dataset
from framefleet.plugins.lerobot.episodes import CAMERA, EPISODE

_SETTINGS = ("seed", "scheduler", "recipe", "model_digest")
_OF_CAMERA = ("height", "width")  # arguments that may differ between cameras
_ALIKE = "use the same seed, e.g. `defaults: {seed: 1}`, prompt and settings for all cameras of an episode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    episode: int  # of the source
    place: int  # in the job's table
    clips: Mapping[str, str]  # row_id by camera


def looks_in(selection: Selection, dataset: Dataset, output: Output) -> tuple[list[Look], int]:
    """Return the complete looks, by episode and place in the table, and the number of incomplete ones.

    dataset: the source. output: whose records are selected. Raises JobError for clips that do not match the
    source.
    """
    cameras, lengths = dataset.cameras, dataset.lengths()
    for name in (EPISODE, CAMERA):
        if name not in selection.nameable:
            fix = "export the output of a job with `table: lerobot://...`"
            raise JobError(f"records have no {name!r}", fix)
    groups = defaultdict[tuple[int, str], dict[str, str]](dict)  # row_id by camera
    places = dict[tuple[int, str], int]()
    sizes = defaultdict[str, set[tuple[int, int]]](set)
    for table in selection.rows(EPISODE, CAMERA, "row_indices", "arguments", *_SETTINGS):
        for row in rows_of(table, RECORDS):
            episode, camera, row_id = row[EPISODE], row[CAMERA], row["row_id"]
            if episode not in lengths or camera not in cameras:
                problem = f"row {row_id} is for {_named(row)}, which {dataset.location} does not have"
                raise JobError(problem, "leave such rows out with --where")
            _check_clip(row, lengths[episode], dataset)
            key, place = (episode, _settings_of(row)), min(row["row_indices"], default=0)
            if (other := groups[key].setdefault(camera, row_id)) != row_id:
                problem = f"rows {other} and {row_id} are in the same look of {_named(row)}"
                raise JobError(problem, "their videos differ; leave one out with --where")
            places[key] = min(place, places.get(key, place))
            sizes[camera].add((row["height"], row["width"]))
    if several := next((camera for camera, of_camera in sizes.items() if len(of_camera) > 1), None):
        of_camera = " and ".join(f"{width} x {height}" for height, width in sorted(sizes[several]))
        raise JobError(f"clips of {several} are {of_camera}", "choose clips of one size with --where")
    to_come = _cameras(output.rows()) - _cameras(output.records([CAMERA]))  # none of their clips is there yet
    wanted = {*sizes, *to_come}
    looks = [
        Look(episode=key[0], place=places[key], clips=clips)
        for key, clips in groups.items()
        if clips.keys() == wanted
    ]
    if groups and not looks:
        (episode, _), clips = next(iter(groups.items()))
        lacking = " and ".join(sorted(wanted - clips.keys()))
        row_id = next(iter(clips.values()))
        problem = f"no look has all cameras; the one with row {row_id}, episode {episode}, lacks {lacking}"
        raise JobError(problem, "render the rest of the job first" if to_come else _ALIKE)
    return sorted(looks, key=lambda look: (look.episode, look.place)), len(groups) - len(looks)


def _cameras(tables: Iterable[pa.Table]) -> set[str]:
    return {camera for table in tables for camera in table[CAMERA].unique().to_pylist()}


def _settings_of(row: Mapping[str, Any]) -> str:
    """Return what the clips of a look have in common: all settings but their input videos and sizes."""
    arguments = {
        name: value
        for name, value in told_arguments(row).items()
        if name not in _OF_CAMERA and not inputs_in(value)
    }
    return canonical_json([arguments, *(row[name] for name in _SETTINGS)])


def _check_clip(row: Mapping[str, Any], length: int, dataset: Dataset) -> None:
    """Raise JobError for a clip that cannot replace its episode's video."""
    if row["num_frames"] != length:
        frames = count_text(row["num_frames"], "frame")
        problem = f"the clip of row {row['row_id']} has {frames}, but {_named(row)} has {length:,}"
        fix = 'render whole episodes, or leave such clips out: --where "num_frames = episode_frames"'
        raise JobError(problem, fix)
    if row["fps"] is None or abs(row["fps"] - dataset.fps) > 1e-6:
        problem = f"the clip of row {row['row_id']} has a frame rate of {row['fps']}"
        raise JobError(f"{problem}, but {dataset.location} has {dataset.fps:g}", "render without `media.fps`")
    if (ending := PurePosixPath(recorded_path(row, RECORDS)).suffix) != ".mp4":
        problem = f"the clip of row {row['row_id']} ends in {ending}, but LeRobot needs mp4"
        raise JobError(problem, "render with `media: {format: mp4}`")


def _named(row: Mapping[str, Any]) -> str:
    return f"episode {row[EPISODE]}, {row[CAMERA]}"


def without(looks: Collection[Look], lost: Collection[str | None]) -> list[Look]:
    return [look for look in looks if not {*look.clips.values()} & {*lost}]
