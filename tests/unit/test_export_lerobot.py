"""LeRobot's datasets: each episode and camera is a row, and clips are exported in place of their videos."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, Output, Store, TableError
from framefleet.api.clips import Frames, Media, encode, open_media
from framefleet.pipeline.outputs.stores.folder import Folder
from framefleet.pipeline.rows.tables import table as table_module
from framefleet.pipeline.rows.tables.table import folder_of, open_table
from tests.commands import command
from tests.lerobot_dataset import CAMERAS, LENGTHS, TASKS, dataset
from tests.small_output import files, frames_of, rendered
from tests.unit.test_video_parts import RATE

FPS = 8  # of clips of a small output
SAME = ("observation.state", "action", "timestamp", "frame_index", "task_index")


def looks(folder: Path, *, lengths: Any = LENGTHS, **changed: Any) -> list[dict[str, Any]]:
    """Commit two looks of each episode and camera, which differ in guidance_scale; return their records."""
    dataset(folder / "source", fps=FPS)
    rows = [(episode, camera, look) for look in (1.0, 2.0) for episode in (0, 2, 1) for camera in CAMERAS]
    episodes, cameras, scales = map(list, zip(*rows, strict=True))
    carried = {"episode": episodes, "camera": cameras, "guidance_scale": scales, "prompt": ["pick"] * 12}
    carried |= {"fidelity": [7.0 + number for number in range(12)]}
    table = changed.pop("table", f"lerobot://{folder / 'source'}")

    def frames(number: int, _: int) -> Frames:
        return frames_of(number, lengths[rows[number][0]])

    seeds = changed.pop("seeds", [1] * 12)
    videos = [{"uri": f"{number}.mp4", "sha256": f"{number:064x}", "kind": "video"} for number in range(12)]
    records = rendered(
        Store(str(folder / "out")),
        12,
        carried={**carried, **changed},
        arguments={"video": videos},
        seeds=seeds,
        frames_of=frames,
    )
    (folder / "out/job.json").write_text(json.dumps({"job": {"table": table}}))
    return records


def export(folder: Path, to: str = "new", **choice: Any) -> Path:
    framefleet.export(str(folder / "out"), str(folder / to), format="lerobot", **choice)
    return folder / to


def episodes_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "meta/episodes").to_pylist()


def test_each_look_is_an_episode_with_the_states_and_actions_of_its_source(tmp_path: Path) -> None:
    records = {record["row_id"]: record for record in looks(tmp_path)}
    new, source = export(tmp_path), tmp_path / "source"
    info, was = (json.loads((folder / "meta/info.json").read_text()) for folder in (new, source))
    assert (info["total_episodes"], info["total_frames"]) == (6, 2 * sum(LENGTHS))
    assert info["features"][CAMERAS[0]]["shape"] == [32, 48, 3] and info["robot_type"] == was["robot_type"]
    assert info["features"]["action"] == was["features"]["action"] and info["splits"] == {"train": "0:6"}
    assert (new / "meta/tasks.parquet").read_bytes() == (source / "meta/tasks.parquet").read_bytes()
    provenance = json.loads((new / "provenance.json").read_text())
    frames, before = (pq.read_table(folder / "data") for folder in (new, source))
    assert frames.schema == before.schema
    episodes, of_source = episodes_of(new), episodes_of(source)
    assert frames["index"].to_pylist() == list(range(len(frames)))
    for number, (episode, about) in enumerate(zip(episodes, provenance["episodes"], strict=True)):
        origin = of_source[number // 2]
        assert (about["episode_index"], about["source_episode_index"]) == (number, number // 2)
        assert (
            episode["tasks"] == origin["tasks"]
            and episode["stats/action/mean"] == origin["stats/action/mean"]
        )
        start, length = episode["dataset_from_index"], origin["length"]
        own, theirs = frames.slice(start, length), before.slice(origin["dataset_from_index"], length)
        assert own.select(SAME).equals(theirs.select(SAME)) and {*own["episode_index"].to_pylist()} == {
            number
        }
        assert episode["stats/index/max"] == [start + length - 1]
        for camera in CAMERAS:
            clip = about["clips"][camera]
            record = records[clip["row_id"]]
            assert record["row_indices"][0] // 6 == number % 2  # looks in the order of the table
            assert (clip["seed"], clip["fidelity"]) == (1, 7.0 + record["row_indices"][0])
            assert clip["model_digest"] == record["model_digest"] and len(clip["inputs_sha256"]) == 1
            content = (
                new
                / info["video_path"].format(
                    video_key=camera, chunk_index=0, file_index=episode[f"videos/{camera}/file_index"]
                )
            ).read_bytes()
            assert content == (tmp_path / "out" / record["path"]).read_bytes()
            with av.open(io.BytesIO(content)) as file:
                times = [float(frame.time or 0) for frame in file.decode(video=0)]
            begin, end = (episode[f"videos/{camera}/{name}_timestamp"] for name in ("from", "to"))
            assert np.allclose(times, begin + np.arange(length) / FPS) and end == length / FPS


def test_statistics_are_those_of_the_pixels_and_else_of_the_source(tmp_path: Path) -> None:
    looks(tmp_path)
    new, source = export(tmp_path), tmp_path / "source"
    statistics, before = (json.loads((folder / "meta/stats.json").read_text()) for folder in (new, source))
    clips = [
        framefleet.api.clips.decode(path.read_bytes()) for path in sorted(new.rglob(f"{CAMERAS[0]}/*/*.mp4"))
    ]
    pixels = np.concatenate(clips) / 255
    for name, value in (
        ("min", pixels.min((0, 1, 2))),
        ("mean", pixels.mean((0, 1, 2))),
        ("std", pixels.std((0, 1, 2))),
    ):
        assert np.allclose(np.ravel(statistics[CAMERAS[0]][name]), value), name
    assert np.abs(np.ravel(statistics[CAMERAS[0]]["q50"]) - np.median(pixels, (0, 1, 2))).max() < 1 / 255
    assert statistics[CAMERAS[0]]["count"] == [2 * sum(LENGTHS)]
    assert [statistics[name] for name in SAME] == [before[name] for name in SAME]
    assert np.allclose(statistics["index"]["std"], np.arange(2 * sum(LENGTHS)).std())
    (first, *_) = episodes_of(new)
    assert np.allclose(np.ravel(first[f"stats/{CAMERAS[0]}/mean"]), (clips[0] / 255).mean((0, 1, 2)))


def test_a_camera_that_was_not_rendered_keeps_its_file(tmp_path: Path) -> None:
    looks(tmp_path)
    new, source = export(tmp_path, where=f"camera = '{CAMERAS[0]}'"), tmp_path / "source"
    path = f"videos/{CAMERAS[1]}/chunk-000/file-000.mp4"
    assert (new / path).read_bytes() == (source / path).read_bytes()
    own = [
        name
        for name in pq.read_schema(new / "meta/episodes/chunk-000/file-000.parquet").names
        if CAMERAS[1] in name
    ]
    assert [{name: row[name] for name in own} for row in episodes_of(new)[::2]] == [
        {name: row[name] for name in own} for row in episodes_of(source)
    ]


class Killed(BaseException):
    """In place of the end of the process."""


def test_an_export_killed_at_any_change_is_no_dataset_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(tmp_path)
    num_left = 1000

    def counted(change: Any) -> Any:
        def counting(*given: Any) -> Any:
            nonlocal num_left
            num_left -= 1
            if num_left < 0:
                raise Killed
            return change(*given)

        return counting

    for name in ("write", "upload", "create", "delete", "delete_all"):
        monkeypatch.setattr(Folder, name, counted(getattr(Folder, name)))
    whole = files(export(tmp_path, "whole", shard_rows=5))
    for number in range(0, 1000 - num_left, 5):
        num_left = number
        with pytest.raises(Killed):
            export(tmp_path, f"new-{number}", shard_rows=5)
        assert not (tmp_path / f"new-{number}/meta/info.json").exists()  # without it, nobody reads the folder
        num_left = 1000
        assert files(export(tmp_path, f"new-{number}", shard_rows=5)) == whole


def test_a_look_with_a_damaged_clip_is_left_out_until_the_clip_is_back(tmp_path: Path) -> None:
    record = looks(tmp_path)[3]
    clip = tmp_path / "out" / record["path"]
    content = clip.read_bytes()
    clip.write_bytes(content[:-1])
    result = command("export", tmp_path / "out", tmp_path / "new", "--format", "lerobot")
    assert result.exit_code == 1 and record["row_id"] in result.output, result.output
    provenance = json.loads((tmp_path / "new/provenance.json").read_text())
    assert [one["source_episode_index"] for one in provenance["episodes"]] == [0, 0, 1, 1, 2]
    assert [row["episode_index"] for row in episodes_of(tmp_path / "new")] == [0, 1, 2, 3, 4]
    clip.write_bytes(content)
    again = command("export", tmp_path / "out", tmp_path / "new", "--format", "lerobot")
    assert again.exit_code == 0 and len(episodes_of(tmp_path / "new")) == 6, again.output


def test_a_look_without_all_cameras_is_left_out(tmp_path: Path) -> None:
    looks(tmp_path)
    result = command(
        *("export", tmp_path / "out", tmp_path / "new", "--format", "lerobot", "--where", "fidelity <> 8")
    )
    assert "left out: 1 look without clips of all cameras" in result.output, result.output
    assert len(episodes_of(tmp_path / "new")) == 5


def test_looks_whose_cameras_are_not_rendered_yet_are_not_those_of_fewer_cameras(tmp_path: Path) -> None:
    looks(tmp_path)
    rows = pa.table({"row_index": [12], "row_id": ["0" * 32], "camera": ["top"]})  # of a job that was killed
    writer = Output.open(str(tmp_path / "out")).writer("rows", rows.schema)
    writer.add(rows.to_batches()[0], {})
    writer.flush()
    with pytest.raises(JobError, match=r"lacks top(.|\n)*render the rest of the job first"):
        export(tmp_path)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"lengths": (9, 5, 12)}, "has 12 frames, but episode 2, observation.images.front has 13"),
        ({"episode": [7] * 12}, "is for episode 7, observation.images.front, which"),
        ({"camera": ["top"] * 12}, "is for episode 0, top, which"),
        ({"seeds": range(12)}, "no look has all cameras"),
        ({"guidance_scale": [1.0] * 12}, "are in the same look of episode 0"),
        ({"table": "prompts.csv"}, "which is not a LeRobot dataset"),
        ({"table": None}, "has no table"),
        ({"table": "lerobot:///nowhere"}, "it has no meta/info.json"),
    ],
)
def test_clips_that_cannot_stand_for_their_episodes_are_refused(
    changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    looks(tmp_path, **changed)
    result = command("export", tmp_path / "out", tmp_path / "new", "--format", "lerobot")
    assert result.exit_code == 2 and problem in result.output and "hint:" in result.output, result.output
    assert not (tmp_path / "new").exists()


def test_clips_at_another_rate_are_refused(tmp_path: Path) -> None:
    looks(tmp_path)
    info = tmp_path / "source/meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fps": 30}))
    with pytest.raises(JobError, match=r"has a frame rate of 8\.0"):
        export(tmp_path)
    with pytest.raises(JobError, match="a LeRobot dataset has no splits"):
        export(tmp_path, validation=0.5)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_clip_that_leads_to_other_files_is_not_followed(text: str, tmp_path: Path) -> None:
    clip = encode(np.zeros((2, 16, 16, 3), np.uint8), media=Media(format="mp4"), fps=8, metadata={})
    (other := tmp_path / "other.mp4").write_bytes(clip)
    open_media(clip).close()
    with pytest.raises(av.FFmpegError):
        open_media(text.format(other).encode())


SHAPES = Path(__file__).parents[2] / "plugins/demo/shapes/model"


def test_each_episode_and_camera_is_a_row(tmp_path: Path) -> None:
    place = f"lerobot://{dataset(tmp_path / 'pick')}"
    table = open_table(place)
    (batch,) = [batch for _, batch in table.batches()]
    rows = batch.to_pylist()
    assert [(row["episode"], row["camera"], row["episode_frames"]) for row in rows] == [
        (number, camera, length) for number, length in enumerate(LENGTHS) for camera in CAMERAS
    ]
    assert [row["prompt"] for row in rows[::2]] == [TASKS[0], "; ".join(TASKS), TASKS[0]]
    assert folder_of(place) == str(tmp_path / "pick") and {row["fps"] for row in rows} == {RATE}


def test_a_job_plans_the_episodes_of_a_dataset_next_to_it(tmp_path: Path) -> None:
    dataset(tmp_path / "pick")
    defaults = {"num_inference_steps": 2, "strength": 0.5, "num_frames": 5, "seed": 1}
    job = {"model": str(SHAPES), "recipe": "video_to_video", "defaults": defaults, "output": "out"}
    (tmp_path / "job.yaml").write_text(json.dumps({**job, "table": "lerobot://pick"}))
    planned = command("plan", tmp_path / "job.yaml")
    assert planned.exit_code == 0 and "6 rows" in planned.output, planned.output
    note = "unusual: 4 rows, e.g. row 0: its clip has 5 frames, but episode 0 has 9"
    assert note in planned.output.replace("\n", " ")
    (tmp_path / "job.yaml").write_text(json.dumps({**job, "table": "lerobot://pikc"}))
    assert "not a LeRobot dataset" in command("plan", tmp_path / "job.yaml").output


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"codebase_version": "v2.1"}, "of version 'v2.1', not v3.0"),
        ({"features": ["top"]}, "has no videos"),
        ({"fps": "fast"}, "fps in meta/info.json is 'fast'"),
        ({"features": {"action": {"dtype": "float32"}}}, "has no videos"),
        ({"video_path": "{video_key.__class__}/{file_index:99999999999d}"}, "video_path is"),
        ({"features": {"top": {"dtype": "video"}}}, "episode 0 has no valid video of top"),
    ],
)
def test_what_is_no_such_dataset_is_refused(info: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(TableError) as refused:
        open_table(f"lerobot://{dataset(tmp_path / 'pick', **info)}")
    assert problem in refused.value.problem and refused.value.fix


def changed_episode(folder: Path, **cells: Any) -> str:
    """Write a dataset whose first episode has these cells; return its place."""
    file = dataset(folder) / "meta/episodes/chunk-000/file-000.parquet"
    first, *others = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist([first | cells, *others]), file)
    return f"lerobot://{folder}"


def test_an_episode_without_frames_or_tasks_is_a_row_that_is_checked_as_others_are(tmp_path: Path) -> None:
    ends = {f"videos/{camera}/to_timestamp": 0.0 for camera in CAMERAS}
    job = {"model": str(SHAPES), "recipe": "video_to_video", "output": "out", "on_invalid": "skip"}
    job["defaults"] = {"num_inference_steps": 2, "strength": 0.5, "num_frames": 5, "seed": 1}  # type: ignore[assignment]
    for name, cells in {"frames": {**ends, "length": 0}, "tasks": {"tasks": None}}.items():
        place = changed_episode(tmp_path / name, **cells)
        (tmp_path / "job.yaml").write_text(json.dumps({**job, "table": place}))
        planned = command("plan", tmp_path / "job.yaml")
        refused = "none of them is in the part" if name == "frames" else "every row needs a prompt"
        assert planned.exit_code == 0 and refused in planned.output.replace("\n", " "), planned.output


def test_a_table_of_episodes_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = changed_episode(tmp_path / "pick", length=8)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int8()), pa.array(["x" * 2**20]))
    pq.write_table(
        pa.table({"tasks": words}), file := tmp_path / "pick/meta/episodes/chunk-000/file-001.parquet"
    )
    assert file.stat().st_size < 2**20
    monkeypatch.setattr(table_module, "_MAX_TABLE", 64 << 20)
    with pytest.raises(TableError, match="takes more than 67,108,864 bytes of memory"):
        open_table(place)


def test_a_part_with_another_number_of_frames_than_its_episode_is_said(tmp_path: Path) -> None:
    place = changed_episode(tmp_path / "pick", length=5)
    (tmp_path / "job.yaml").write_text(
        json.dumps(
            {
                **{"table": place, "model": str(SHAPES), "recipe": "video_to_video", "output": "out"},
                "sweep": {"num_frames": "{episode_frames}", "strength": [0.5, 0.6]},
            }
        )
    )
    planned = command("plan", tmp_path / "job.yaml").output.replace("\n", " ")
    assert "unusual: 4 rows, e.g. row 0: its video has 9 frames, but episode 0 has 5" in planned, planned


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(TableError, match="not a LeRobot dataset"):
            open_table(f"lerobot://{place}")
