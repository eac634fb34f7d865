"""What a table may read: nothing gets out of a root, and outside of roots there is only the public web."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings, strategies as st

from framefleet import InputError, Inputs, JobError
from framefleet.pipeline.rows.inputs.roots import LocalFile, Roots, StoredFile, WebFile

SECRET = b"the secret"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root `in/` with ways out of it, beside `out/` and `in-too/`, which hold what nobody may read."""
    top = tmp_path_factory.mktemp("top")
    for name in ("in/sub", "out", "in-too"):
        (top / name).mkdir(parents=True)
    for name in ("out/secret", "in-too/secret", "secret"):
        (top / name).write_bytes(SECRET)
    (top / "in" / "a.png").write_bytes(b"a picture")
    (top / "in" / "link").symlink_to(top / "out")
    (top / "in" / "sub" / "up").symlink_to("../..")
    (top / "in" / "file").symlink_to(top / "secret")
    (top / "in" / "round").symlink_to("round")
    return top


WORDS = ".. . / // \\ in in-too out secret sub up link file round a.png ~ %2e%2e %2f"
PIECES = st.sampled_from(
    [*WORDS.split(), "file://", "FILE:///", "\0", "\n", " ", "::", "s3://", "simplecache::"]
)


@settings(deadline=None)
@given(pieces=st.lists(PIECES | st.text(max_size=3), max_size=12), is_absolute=st.booleans())
@example(pieces=["link", "/", "secret"], is_absolute=False)
@example(pieces=["sub/up/../top/secret"], is_absolute=False)
@example(pieces=["-too/secret"], is_absolute=True)
@example(pieces=["file"], is_absolute=False)
def test_no_text_gets_out_of_a_folder(folders: Path, pieces: list[str], is_absolute: bool) -> None:
    root = str(folders / "in")
    uri = (root if is_absolute else "") + "".join(pieces)
    try:
        place = Roots([root]).place(uri)
    except InputError as error:
        assert error.fix
        return
    if isinstance(place, LocalFile):
        assert place.path == root or place.path.startswith(root + "/")
        assert not os.path.isfile(place.path) or Path(place.path).read_bytes() != SECRET
    else:
        assert isinstance(place, WebFile) and not place.is_trusted


ESCAPES = ".. . / // \\ %2e %2E%2e %252e %2f %5c ; a b ? # @ : s3://"
STEPS = st.sampled_from(ESCAPES.split())


@settings(deadline=None)
@given(
    start=st.sampled_from(["http://h/a/", "http://h/a", "HTTP://H:80/a/", "http://h", "http://h:81/a/", ""]),
    steps=st.lists(STEPS | st.text(max_size=2), max_size=10),
)
@example(start="http://h/a/", steps=["..;/b"])
@example(start="http://h/a/", steps=["%2e%2e%5cb"])
@example(start="http://h/a/", steps=["b/%252e%252e%252f%252e%252e/c"])
def test_no_url_gets_out_of_a_web_root(start: str, steps: list[str]) -> None:
    try:
        place = Roots(["http://h/a"]).place(start + "".join(steps))
    except InputError:
        return
    if isinstance(place, WebFile) and place.is_trusted:
        assert (place.url.host, place.url.port) == ("h", 80)
        path = place.url.raw_path
        for _ in range(4):
            path = re.sub(r";[^/]*", "", unquote(path).replace("\\", "/"))
            assert posixpath.normpath("/" + path.lstrip("/")).startswith("/a")


@settings(deadline=None)
@given(steps=st.lists(STEPS | st.text(max_size=2), max_size=10), is_absolute=st.booleans())
@example(steps=["../b"], is_absolute=True)
@example(steps=["b/../../../c"], is_absolute=False)
def test_no_url_gets_out_of_a_bucket_folder(steps: list[str], is_absolute: bool) -> None:
    try:
        place = Roots(["s3://bucket/a"]).place(("s3://bucket/a" if is_absolute else "") + "".join(steps))
    except InputError:
        return
    if isinstance(place, StoredFile):
        assert ".." not in place.path.split("/")
        assert place.path == posixpath.normpath(place.path) and not place.path.startswith("/")
    else:
        assert isinstance(place, WebFile) and not place.is_trusted


def test_a_path_is_relative_to_the_folder_of_the_table_or_the_first_root(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    here = Inputs(["in"])
    monkeypatch.chdir("/")
    assert here.locate("a.png") == f"{folders}/in/a.png"
    inputs = Inputs([f"{folders}/in", f"{folders}/out"])
    assert inputs.locate("a.png") == f"{folders}/in/a.png"
    assert inputs.locate("../out/secret") == f"{folders}/out/secret"
    assert inputs.locate(f"file://{folders}/in/sub/../a.png") == f"{folders}/in/a.png"
    of_table = Inputs([f"{folders}/out"], base=f"{folders}/in")
    assert of_table.locate("a.png") == f"{folders}/in/a.png"
    assert of_table.locate(f"{folders}/out/secret") == f"{folders}/out/secret"
    in_bucket = Inputs(["s3://bucket/table", "s3://bucket/images"])
    assert in_bucket.locate("b/c d.png") == "s3://bucket/table/b/c d.png"
    assert in_bucket.locate("../images/x?y#z.png") == "s3://bucket/images/x?y#z.png"
    assert Inputs(["https://h/table/"]).locate("b/c d.png?v=1") == "https://h/table/b/c%20d.png?v=1"


def test_the_host_of_a_table_on_the_web_is_no_root() -> None:
    roots = Roots(["http://h/images"], base="http://me:pw@h/tables")
    for uri in ("a.png", "http://h/tables/a.png"):
        place = roots.place(uri)
        assert isinstance(place, WebFile) and not place.is_trusted
        assert str(place.url) == "http://me:pw@h/tables/a.png"
    inside = roots.place("../images/a.png")
    assert isinstance(inside, WebFile) and inside.is_trusted and inside.url.user is None
    named = Roots(["http://h/tables"], base="http://h/tables").place("a.png")
    assert isinstance(named, WebFile) and named.is_trusted
    for base in ("simplecache::http://h/tables", "zip://images::https://h/table.zip"):
        with pytest.raises(InputError, match=r"outside of inputs\.roots"):
            Roots([], base=base).place("a.png")


def test_a_root_inside_an_archive_is_one_for_relative_paths_only() -> None:
    inputs = Inputs(["zip://images::s3://bucket/table.zip"])
    assert inputs.locate("a/b.png") == "zip://images::s3://bucket/table.zip/a/b.png"
    for uri in ("zip://images/a.png::s3://bucket/table.zip", "../other/a.png"):
        with pytest.raises(InputError):
            inputs.locate(uri)


def test_a_root_does_not_cover_what_only_begins_like_it() -> None:
    roots = Roots(["s3://bucket/a", "http://h/a"])
    for uri in ("s3://bucket/ab/x.png", "s3://bucket/x.png", "s3://bucket2/a/x.png", "s3a://bucket/a/x.png"):
        with pytest.raises(InputError, match=r"outside of inputs\.roots"):
            roots.place(uri)
    for uri in ("http://h/ab", "https://h/a/x", "http://h:81/a/x", "http://h.evil/a/x"):
        place = roots.place(uri)
        assert isinstance(place, WebFile) and not place.is_trusted


def test_the_password_of_a_root_is_for_what_lies_below_it_only() -> None:
    roots = Roots(["https://me:pw@h/a", "ftp://me:pw@h/a"])
    inside, outside = roots.place("https://h/a/x.png"), roots.place("https://h/b/x.png")
    assert isinstance(inside, WebFile) and inside.url.password == "pw"
    assert isinstance(outside, WebFile) and outside.url.password is None
    assert roots.place("ftp://h/a/x.png") == StoredFile(root="ftp://me:pw@h/a", path="x.png")


@pytest.mark.parametrize(
    "uri",
    [
        *("/etc/passwd", "file:///etc/passwd", "local:///etc/passwd", "../x", "s3://bucket/x", "gs://b/x"),
        *("ftp://h/x", "hf://datasets/x", "s3://bucket", "s3://../../x"),
    ],
)
def test_what_lies_outside_is_refused_with_the_root_to_add(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Inputs([str(tmp_path)]).locate(uri)
    assert caught.value.problem == "it lies outside of inputs.roots"
    assert caught.value.fix.startswith("add '") and "to inputs.roots" in caught.value.fix
    with pytest.raises(InputError) as caught:
        Inputs(["/data"]).locate("s3://bucket/folder?sig=s3cr3t/x.png")
    assert "'s3://bucket/folder'" in caught.value.fix
    with pytest.raises(InputError, match=r"relative(.|\n)*inputs\.roots"):
        Inputs([]).locate("a.png")


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        *((uri, "chains") for uri in ("simplecache::s3://b/x", "zip://x::http://h/y.zip")),
        *((uri, "user or a password") for uri in ("http://me@h/x", "https://me:p@w@h/x", "s3://k:s@b/x")),
        *((uri, "control characters") for uri in ("http://h/x\r\nHost: y", "a\0.png", "a\x85.png", "\ud800")),
        *((uri, "blank") for uri in ("", "  ")),
        *((uri, "not a URL") for uri in ("http://h:99999/x", "http://[::1/x")),
        *((uri, "with a host") for uri in ("http:///x", "https://")),
        ("data:image/png;base64," + "A" * 5000, "longer than 4096"),
        ("file://etc/passwd", "no absolute path"),
        ("s3://bucket//x", "empty name"),
    ],
)
def test_texts_that_are_no_plain_place_are_refused(uri: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        Inputs(["/data", "s3://bucket"]).locate(uri)
    assert problem in caught.value.problem + caught.value.fix
    assert caught.value.fix


@pytest.mark.parametrize("root", ["", "file://", "s3://", "http://", "https:///", "http://h:99999/"])
def test_a_root_that_is_everything_or_nothing_is_a_mistake_in_the_job(root: str) -> None:
    with pytest.raises(JobError, match=r"inputs\.roots") as caught:
        Inputs([root])
    assert caught.value.fix
