"""What a table's paths name: read from folders and stores below the roots, bounded, or refused."""

from __future__ import annotations

import os
import pickle
import uuid
from pathlib import Path

import fsspec
import pytest

from framefleet import Inputs
from framefleet.pipeline.errors import InputError, StoreError
from framefleet.pipeline.outputs.stores import retries
from framefleet.pipeline.rows.inputs import access
from framefleet.pipeline.rows.inputs.access import naming


def test_files_below_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "a b#c?.png").write_bytes(b"a picture")
    inputs = Inputs([str(tmp_path)])
    for uri in ("a b#c?.png", f"{tmp_path}/a b#c?.png", f"file://{tmp_path}/a b#c?.png"):
        assert inputs.read(uri) == b"a picture"


def test_objects_below_a_url_are_read() -> None:
    root = f"memory://{uuid.uuid4().hex}/images"
    fsspec.filesystem("memory").pipe_file(f"{root}/a/b.png", b"a picture")
    inputs = Inputs(["/nowhere", root])
    assert inputs.read(f"{root}/a/b.png") == b"a picture"
    assert Inputs([root]).read("a/b.png") == b"a picture"
    with pytest.raises(InputError, match="does not exist"):
        inputs.read(f"{root}/none.png")


def test_inputs_travel_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a picture")
    inputs = Inputs([str(tmp_path), "memory://x", "https://me:pw@h/a"], {"key": "k"})
    assert pickle.loads(pickle.dumps(inputs)).read("a.png") == b"a picture"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none.png", "it does not exist"),
        ("folder", "it cannot be read: it is a folder, not a file"),
        ("pipe", "it cannot be read: it is a pipe, not a file"),
        ("empty.png", "it is an empty file"),
        ("large.png", "it is larger than 100 bytes"),
        ("round.png", "it cannot be read: Too many levels of symbolic links"),
        ("file.png/a.png", "it cannot be read: Not a directory"),
        ("n" * 300, "it cannot be read: File name too long"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MAX_BYTES", 100)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.png").touch()
    (tmp_path / "file.png").write_bytes(b"1" * 100)
    (tmp_path / "large.png").write_bytes(b"1" * 101)
    (tmp_path / "round.png").symlink_to("round.png")
    inputs = Inputs([str(tmp_path)])
    assert len(inputs.read("file.png")) == 100
    with pytest.raises(InputError) as caught:
        inputs.read(name)
    assert caught.value.problem == problem
    assert caught.value.fix


def test_a_device_is_not_read_even_where_all_may_be() -> None:
    with pytest.raises(InputError, match="a device"):
        Inputs(["/"]).read("/dev/zero")


def test_a_store_that_does_not_answer_is_no_fault_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_ANSWER_S", 0.1)
    with pytest.raises(StoreError, match="could not read"):
        Inputs(["ftp://127.0.0.1:1/images"]).read("a.png")


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
    assert caught.value.problem.startswith("image is 's3://bucket/x.png', but it holds a user")
    assert "s3cr3t" not in str(caught.value)
