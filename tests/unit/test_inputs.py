"""What a table's paths name, and what rows start from: read once below the roots, bounded, or refused."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from framefleet import Inputs
from framefleet.pipeline.errors import InputError, JobError, Refused, StoreError
from framefleet.pipeline.guards.hosts import is_public
from framefleet.pipeline.model.specs.signature import InputKind
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.parts.records import public_arguments
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.pictures import Described, describe
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from tests.configs import WAN, write_model
from tests.media_files import image_file, video_file


def test_files_below_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "a b#c?.png").write_bytes(b"a picture")
    inputs = Inputs([str(tmp_path)])
    for uri in ("a b#c?.png", f"{tmp_path}/a b#c?.png", f"file://{tmp_path}/a b#c?.png"):
        assert inputs.read(uri) == b"a picture"


def test_objects_below_a_url_are_read_in_another_process_too(tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}/images"
    fsspec.filesystem("memory").pipe_file(f"{root}/a/b.png", b"a picture")
    inputs = pickle.loads(pickle.dumps(Inputs(["/nowhere", root, "https://me:pw@h/a"], {"key": "k"})))
    assert inputs.read(f"{root}/a/b.png") == b"a picture"
    assert Inputs([root]).read("a/b.png") == b"a picture"
    with pytest.raises(InputError, match="does not exist"):
        inputs.read(f"{root}/none.png")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none.png", "it does not exist"),
        ("folder", "it cannot be read: it is a folder, not a file"),
        ("pipe", "it cannot be read: it is a pipe, not a file"),
        ("empty.png", "it is an empty file"),
        ("large.png", "it is larger than 268,435,456 bytes"),
        ("round.png", "it cannot be read: Too many levels of symbolic links"),
        ("file.png/a.png", "it cannot be read: Not a directory"),
        ("n" * 300, "it cannot be read: File name too long"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(name: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.png").touch()
    (tmp_path / "file.png").write_bytes(b"1" * 100)
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate((256 << 20) + 1)  # takes no room
    (tmp_path / "round.png").symlink_to("round.png")
    inputs = Inputs([str(tmp_path)])
    assert len(inputs.read("file.png")) == 100
    with pytest.raises(InputError, match="a device"):
        Inputs(["/"]).read("/dev/zero")
    with pytest.raises(InputError) as caught:
        inputs.read(name)
    assert caught.value.problem == problem
    assert caught.value.fix


def test_a_store_that_does_not_answer_is_no_fault_of_the_cell_and_stops_the_survey() -> None:
    inputs = Inputs(["ftp://127.0.0.1:1/images"], outage_s=0.1)
    with pytest.raises(StoreError, match="could not read"):
        inputs.read("a.png")
    with closing(InputIndex(inputs)) as index:
        for _ in range(2):  # it is asked again
            with pytest.raises(StoreError):
                index.find("a.png", "image")


def test_a_store_that_refuses_one_object_refuses_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("no rights on x.png?sig=sign3d for key-s3cr3t")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", fail)
    with pytest.raises(InputError) as caught:
        Inputs(["memory://images"], {"key": "key-s3cr3t"}).read("x.png?sig=sign3d")
    assert caught.value.problem == "it cannot be read: PermissionError: no rights on x.png for ***"
    assert "credentials" in caught.value.fix


def test_a_cell_is_named_without_what_may_be_secret(tmp_path: Path) -> None:
    uri = "s3://me:s3cr3t@bucket/x.png?sig=s3cr3t"
    with pytest.raises(InputError) as caught, naming("image", uri):
        Inputs([str(tmp_path)]).read(uri)
    assert caught.value.problem.startswith("image is 's3://bucket/x.png', but it contains a user")
    assert "s3cr3t" not in str(caught.value)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[InputIndex]:
    (tmp_path / "a.png").write_bytes(image_file())
    (tmp_path / "b.mp4").write_bytes(video_file())
    with closing(InputIndex(Inputs([str(tmp_path)]))) as index:
        yield index


def test_what_was_read_before_is_found_though_the_file_is_gone(index: InputIndex, tmp_path: Path) -> None:
    index.prefetch([("a.png", "image"), ("none.png", "image"), ("/etc/passwd", "image"), ("a.png", "image")])
    assert index.find("b.mp4", "video") == describe(video_file(), "video")
    for name in ("a.png", "b.mp4"):
        (tmp_path / name).unlink()
    assert index.find("a.png", "image") == describe(image_file(), "image")
    assert index.find("b.mp4", "video") == describe(video_file(), "video")
    assert index.find("none.png", "image") == Refused(reason="it does not exist", fix="check the path")
    assert isinstance(index.find("/etc/passwd", "image"), Refused)


def test_a_file_is_another_thing_as_an_image_and_as_a_video(index: InputIndex) -> None:
    index.prefetch([("a.png", "image"), ("a.png", "video"), ("b.mp4", "image")])
    assert isinstance(index.find("a.png", "image"), Described)
    for uri, kind, reason in (
        ("a.png", "video", "it is an image (png), not a video"),
        ("b.mp4", "image", "it is a video (mp4), not an image"),
    ):
        answer = index.find(uri, kind)  # type: ignore[arg-type]  # a str that is a MediaKind
        assert isinstance(answer, Refused) and answer.reason == reason and answer.fix


def test_what_an_index_has_started_ends_with_it_though_nobody_closes_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_file())
    before = threading.enumerate()
    index = InputIndex(Inputs([str(tmp_path)]))
    index.find("a.png", "image")
    threads = [thread for thread in threading.enumerate() if thread not in before]
    (box,) = index._describer._boxes._idle
    assert box._process.poll() is None
    del index
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert box._process.poll() is not None


PUBLIC = ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
OTHERS = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),  # metadata
    *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::127.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    *("", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "8.8.8.8 "),
)


@pytest.mark.parametrize("address", [*PUBLIC, *OTHERS])
def test_addresses_of_the_internet_are_public_and_no_others(address: str) -> None:
    assert is_public(address) == (address in PUBLIC)


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
