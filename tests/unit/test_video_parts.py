"""Cells that mean a part of a video: the frames that PyAV decodes there, of a file that is read once."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from framefleet import Inputs, TableError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.media.av_file import SCALING, scheduling_restored
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.identity import Identity, deciding
from framefleet.pipeline.rows.inputs.arguments import ReadAhead, open_arguments
from framefleet.pipeline.rows.inputs.pictures import Described, describe_parts, open_video
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.inputs.video_parts import VideoPart, as_text, split_part
from framefleet.pipeline.rows.tables.record_columns import argument_values
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow, TableRows
from tests.configs import WAN, write_model
from tests.media_files import picture

RATE = 25
# Container, codec, its options, and how long the frames are shown, in turn, in 1/RATE of a second.
FILES: dict[str, tuple[str, str, dict[str, str], tuple[int, ...]]] = {
    "h264 with B-frames": ("mp4", "libx264", {"bf": "3", "g": "12", "refs": "3"}, (1,)),
    "h264 with open GOPs": ("mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=10"}, (1,)),
    "h264 that varies": ("mp4", "libx264", {"bf": "2", "g": "8"}, (1, 3, 2)),
    "av1": ("mp4", "libsvtav1", {"g": "10", "preset": "12"}, (1,)),
    "vp9": ("webm", "libvpx-vp9", {"g": "10", "deadline": "realtime"}, (1,)),
    "mpeg-2 in a stream": ("mpegts", "mpeg2video", {"bf": "2", "g": "9"}, (1,)),
    "one key frame": ("mp4", "libx264", {"bf": "2", "g": "1000"}, (1,)),
    "a tick for each frame": ("avi", "mpeg4", {"g": "10"}, (1,)),
}


@cache
def shared(name: str, num_frames: int = 50, rate: Fraction = Fraction(RATE)) -> bytes:
    container, codec, options, lasting = FILES[name]
    content = io.BytesIO()
    with av.open(content, "w", format="matroska" if container == "mkv" else container) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        with scheduling_restored():
            stream.codec_context.open()
        shown = 0
        for number in range(num_frames):
            pixels = np.asarray(picture(seed=number).resize((64, 48))) // 2
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = shown, 1 / rate
            shown += lasting[number % len(lasting)]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return content.getvalue()


def decoded(content: bytes) -> list[tuple[float, np.ndarray]]:
    """Return each frame and its second, as PyAV has them from the beginning of the file."""
    frames = []
    with av.open(io.BytesIO(content)) as file:
        for one in file.decode(video=0):
            rgb = one.reformat(format="rgb24", interpolation=SCALING, threads=1)
            frames.append((float(one.time or 0), rgb.to_ndarray()))
    return [(time - frames[0][0], pixels) for time, pixels in frames]


@pytest.mark.parametrize("name", FILES)
def test_a_part_is_the_frames_that_are_shown_in_it(name: str) -> None:
    content = shared(name)
    frames = decoded(content)
    last = frames[-1][0]
    assert last > 1.9
    spans = [(0.0, 0.2), (0.08, 0.2), (0.36, 1.2), (0.5, None), (last, None), (1.0, last)]
    parts = [VideoPart("t", start, end) for start, end in spans]
    for part, found in zip(parts, describe_parts(content, "video", parts), strict=True):
        end = part.end or np.inf
        right = [pixels for time, pixels in frames if part.start - 1e-4 <= time < end - 1e-4]
        assert isinstance(found, Described) and found.num_frames == len(right), (part, found)
        taken = open_video(content, max_frames=found.num_frames, first=found.first_frame or 0)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(taken, right, strict=True)), part
    (by_frames,) = describe_parts(content, "video", [VideoPart("frames", 7, 19)])
    assert isinstance(by_frames, Described) and (by_frames.first_frame, by_frames.num_frames) == (7, 12)


@pytest.mark.parametrize(
    "name", ["h264 with B-frames", "h264 with open GOPs", "vp9", "a tick for each frame"]
)
@pytest.mark.parametrize("rate", [Fraction(30), Fraction(24000, 1001)])
def test_frames_are_found_by_their_rate_also_where_times_are_in_milliseconds(
    name: str, rate: Fraction
) -> None:
    spans = [(0, 1), (1, 2), (7, 13), (13, 50)]
    parts = [VideoPart("t", float(first / rate), float(end / rate)) for first, end in spans]
    found = describe_parts(shared(name, rate=rate), "video", parts)
    assert [(part.first_frame, part.num_frames) for part in found if isinstance(part, Described)] == [
        (first, end - first) for first, end in spans
    ]


@pytest.mark.parametrize("name", ["h264 with B-frames", "one key frame"])
def test_two_hundred_episodes_of_one_file_read_it_twice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, count = shared(name, 1000), 200
    (tmp_path / "shared.mp4").write_bytes(content)
    num_bytes, read = 0, Inputs.read

    def counted(inputs: Inputs, uri: str) -> bytes:
        nonlocal num_bytes
        num_bytes += len(found := read(inputs, uri))
        return found

    monkeypatch.setattr(Inputs, "read", counted)
    inputs = Inputs([str(tmp_path)], base=str(tmp_path))
    index, ahead = InputIndex(inputs), ReadAhead(inputs.read)
    bounds = [k * 5 / RATE for k in range(count + 1)]
    table = pa.table(
        {
            "prompt": ["pick"] * count,
            "video": ["shared.mp4"] * count,
            "video_from_s": bounds[:-1],
            "video_to_s": bounds[1:],
        }
    )
    spec = inspect_model(write_model(tmp_path / "model", "WanVideoToVideoPipeline", WAN))
    plan = plan_rows(table.schema, spec, finder=index)
    frames, row_ids, shown = decoded(content), set(), dict[int, str]()
    batches = table.combine_chunks().to_batches(max_chunksize=30)  # as with a sweep of many values
    for number, row in enumerate(row for batch in batches for row in plan.rows(0, batch)):
        assert isinstance(row, CheckedRow), row
        value = row.request.arguments["video"]
        assert (value["first_frame"], value["num_frames"]) == (5 * number, 5)
        row_ids.add(canonical_json(deciding(row.request.arguments)))
        if number % 40 == 0:
            ahead.start(value["uri"])
            taken = open_arguments({"video": value}, ahead.read)["video"]
            right = [pixels for _, pixels in frames[5 * number : 5 * number + 5]]
            assert all(np.array_equal(ours, theirs) for ours, theirs in zip(taken, right, strict=True))
            shown[number] = argument_values(row.request.arguments, plan.argument_fields)["video"]
            assert shown[number].endswith(f"shared.mp4#frames={5 * number},{5 * number + 5}")
    assert len(row_ids) == count and num_bytes == 2 * len(content)
    index.prefetch(())  # rows that name no part of it: it is freed
    for number, place in shown.items():  # as in records
        found = index.find("shared.mp4" + place.partition("shared.mp4")[2], "video")
        assert isinstance(found, Described) and found.first_frame == 5 * number
    assert num_bytes == 3 * len(content)
    index.close()


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("a.mp4", "a.mp4"),
        ({"file": "a.mp4", "from": 1.5, "to": 3}, "a.mp4#t=1.5,3"),
        ({"file": "a.mp4", "from": None, "to": 0.00001}, "a.mp4#t=,0.00001"),
        ({"file": "a.mp4", "from_frame": 4.0, "to_frame": None}, "a.mp4#frames=4"),
        ({"file": "a.mp4"}, "a.mp4"),
        ({"file": "a#b.mp4", "from_s": 100}, "a#b.mp4#t=100"),
        ({"file": "a.mp4", "from_s": "1.50", "to_s": "3"}, "a.mp4#t=1.5,3"),
        ({"file": "a.mp4", "from_s": -0.0, "to_s": 3}, "a.mp4#t=0,3"),
    ],
)
def test_mappings_are_texts(cell: Any, text: str) -> None:
    assert as_text(cell) == text
    assert split_part(text)[0] == text.partition("#t=")[0].partition("#frames=")[0]


@pytest.mark.parametrize(
    "cell",
    [
        {"file": "a.mp4", "from": 1, "to_frame": 3},
        {"file": "a.mp4", "from": -1},
        {"file": "a.mp4", "from": True},
        {"file": "a.mp4", "from": float("nan")},
        {"file": "a.mp4", "from_frame": 1.5},
        {"file": "a.mp4", "from": 1, "from_s": 2},
        {"file": "a.mp4", "begin": 1},
        {"from": 1},
        {},
    ],
)
def test_other_mappings_are_left_for_the_check(cell: Any) -> None:
    assert as_text(cell) is cell


@pytest.mark.parametrize(
    "place",
    [
        *("a.mp4#t=", "a.mp4#t=,", "a.mp4#frames=1.5,2", "a#t=1,2.mp4", "#t=1,2", "a.mp4#t=-1,2"),
        f"a.mp4#frames={'9' * 400}",  # no number holds it
    ],
)
def test_what_names_no_part_is_a_file(place: str) -> None:
    assert split_part(place) == (place, None)


@pytest.mark.parametrize(
    ("columns", "job", "fix"),
    [
        (["video_to_s"], {"defaults": {"video": "a.mp4"}}, "name the video in a column 'video'"),
        (["clip", "video_from_s"], {"columns": {"video": "clip"}}, "call it 'clip_from_s'"),
    ],
)
def test_an_end_of_no_part_is_refused(columns: list[str], job: Any, fix: str, tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path / "model", "WanVideoToVideoPipeline", WAN))
    table = pa.table({"prompt": ["pick"], **{name: ["1"] for name in columns}})
    with pytest.raises(TableError, match="is about a column 'video'") as refused:
        plan_rows(table.schema, spec, **job)
    assert fix in str(refused.value)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"video": ["a.mp4#t=1,99"]}, "it has 50 frames, the last at 1.96 s, and the part ends later"),
        ({"video": ["a.mp4#t=1.5,1.2"]}, "none of them is in the part"),
        ({"video": ["a.mp4#frames=48,53"]}, "the part ends later"),
        (
            {"video": [{"file": "a.mp4", "from": 1.0, "to_frame": 40}]},
            "it must be the path or URL of a video",
        ),
        ({"video": ["a.mp4"], "video_from_s": ["soon"]}, "it must be the path or URL of a video"),
        ({"video": ["a.mp4"], "video_from_frame": [44], "video_to_frame": [48]}, "4k + 1"),
    ],
)
def test_a_part_that_is_not_there_is_refused(cells: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(shared("h264 with B-frames"))
    index = InputIndex(Inputs([str(tmp_path)], base=str(tmp_path)))
    table = pa.table({"prompt": ["pick"], **cells})
    spec = inspect_model(write_model(tmp_path / "model", "WanVideoToVideoPipeline", WAN))
    (row,) = plan_rows(table.schema, spec, finder=index).rows(0, table.to_batches()[0])
    assert isinstance(row, InvalidRow) and reason in row.messages()[0][0] and row.messages()[0][1]
    index.close()


def test_rows_of_tables_name_parts_in_all_ways(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(shared("h264 with B-frames"))
    index = InputIndex(Inputs([str(tmp_path)], base=str(tmp_path)))
    spec = inspect_model(write_model(tmp_path / "model", "WanVideoToVideoPipeline", WAN))
    identity, count = Identity(model_digest="ab", numerics={}, recipes=BUILT_IN), 3
    row_ids = []
    for cells in (
        {"video": ["a.mp4#t=0.4,0.6"]},
        {"video": ["a.mp4"], "video_from_s": [0.4], "video_to_s": [0.6]},
        {"video": [{"file": "a.mp4", "from": 0.4, "to": 0.6}]},
    ):
        values = {name: cell * count for name, cell in cells.items()}
        (batch,) = pa.table({"prompt": ["pick", "place", "pick"], **values}).to_batches()
        rows = [*TableRows(plan_rows(batch.schema, spec, finder=index), identity).read(range(count), batch)]
        row_ids.append([row.row_id for row in rows if isinstance(row, IdentifiedRow)])
    assert row_ids[0] == row_ids[1] == row_ids[2]
    assert len(row_ids[0]) == count and len({*row_ids[0]}) == 2
    index.close()
