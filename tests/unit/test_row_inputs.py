"""Cells that hold the path or URL of an image or a video: what becomes of them in a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from framefleet.pipeline.errors import JobError, Refused
from framefleet.pipeline.model.specs.signature import InputKind
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.parts.records import public_arguments
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from tests.configs import WAN, write_model


@dataclass(frozen=True)
class Known:
    uri: str
    sha256: str
    num_frames: int = 1
    first_frame: int | None = None
    height: int = 24
    width: int = 20


class Shelf:
    """A finder of what it was given."""

    def __init__(self, *known: Known) -> None:
        self.known = {one.uri: one for one in known}

    def prefetch(self, wanted: Iterable[tuple[str, InputKind]]) -> None: ...

    def find(self, uri: str, kind: InputKind) -> Known | Refused:
        return self.known.get(uri) or Refused(reason="it does not exist", fix="check the path")

    def locate(self, uri: str) -> str:
        return f"/shelf/{uri}"


SHELF = (Known("a.png", "aa"), Known("b.png", "bb"), Known("nine.mp4", "99", 9), Known("ten.mp4", "10", 10))


@pytest.fixture(scope="module")
def from_image(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("i2v"), "WanImageToVideoPipeline", WAN))


@pytest.fixture(scope="module")
def from_video(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("v2v"), "WanVideoToVideoPipeline", WAN))


def read(spec: PipelineSpec, table: dict[str, Any], **job: Any) -> list[CheckedRow | InvalidRow]:
    batch = pa.RecordBatch.from_pydict(table)
    return list(plan_rows(batch.schema, spec, finder=Shelf(*SHELF), **job).rows(0, batch))


def test_an_image_is_identified_by_its_content(from_image: PipelineSpec) -> None:
    (row,) = read(from_image, {"prompt": ["p"], "image": [" a.png "]})
    assert isinstance(row, CheckedRow)
    assert row.request.arguments["image"] == {"uri": "/shelf/a.png", "sha256": "aa"}


def test_a_default_image_counts_for_all_rows(from_image: PipelineSpec) -> None:
    (row,) = read(from_image, {"prompt": ["p"]}, defaults={"image": "b.png"})
    assert isinstance(row, CheckedRow)
    assert row.request.arguments["image"]["sha256"] == "bb"


SIGNED = "https://user:word@host/x.png?signature=s"


@pytest.mark.parametrize(
    ("cell", "problem"),
    [(None, "is empty, but every row needs an"), (SIGNED, "is 'https://host/x.png', but it does not exist")],
)
def test_an_absent_image_is_refused_without_its_secrets(
    cell: str | None, problem: str, from_image: PipelineSpec
) -> None:
    (row,) = read(from_image, {"prompt": ["p"], "image": pa.array([cell], pa.string())})
    assert isinstance(row, InvalidRow)
    assert row.messages()[0][0].startswith(f"row 0: image {problem}") and row.messages()[0][1]


def test_an_absent_default_image_is_refused_without_its_secrets(from_image: PipelineSpec) -> None:
    with pytest.raises(JobError) as caught:
        read(from_image, {"prompt": ["p"]}, defaults={"image": SIGNED})
    assert caught.value.problem == "defaults.image is 'https://host/x.png', but it does not exist"


def test_a_video_must_have_a_length_that_the_model_renders(from_video: PipelineSpec) -> None:
    fits, does_not = read(from_video, {"prompt": ["p", "p"], "video": ["nine.mp4", "ten.mp4"]})
    assert isinstance(fits, CheckedRow)
    assert isinstance(does_not, InvalidRow)
    assert does_not.messages()[0] == (
        "row 1: video is '/shelf/ten.mp4', but it has 10 frames, and WanVideoToVideo renders 4k + 1 frames",
        "use 9 or 13, or let the recipe video_to_video take the first num_frames",
    )


def test_the_first_frames_of_a_video_are_taken_where_the_recipe_can(from_video: PipelineSpec) -> None:
    table = {"prompt": ["p", "p"], "video": ["ten.mp4", "nine.mp4"], "num_frames": [9, 13]}
    fits, too_long = read(from_video, table, recipe=BUILT_IN["video_to_video"])
    assert isinstance(fits, CheckedRow)
    assert isinstance(too_long, InvalidRow)
    assert "it has 9 frames, and num_frames is 13" in too_long.messages()[0][0]


def test_records_show_urls_without_what_may_be_secret() -> None:
    signed = {"prompt": "p", "image": {"uri": "https://u:p@host/a.png?sig=1", "sha256": "aa"}}
    assert public_arguments(signed) == '{"image":{"sha256":"aa","uri":"https://host/a.png"},"prompt":"p"}'
