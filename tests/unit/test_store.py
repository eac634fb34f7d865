"""One output root, local or in memory: atomic writes, creates that conflict, errors without secrets."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from framefleet import JobError, NoFile, Store, StoreConflict, StoreError
from tests.creates import losers_of_a_race
from tests.failing_store import failing


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "folder":
        yield Store(str(tmp_path / "run"))
        return
    yield Store(f"memory://{uuid.uuid4().hex}/run")
    fsspec.filesystem("memory").store.clear()


def test_what_is_written_or_uploaded_is_read_back_replaced_and_deleted(store: Store, tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        (tmp_path / "model.bin").write_bytes(content)
        store.upload("model/unet/model.bin", tmp_path / "model.bin")
        store.write("clips/ab/one.mp4", content)
    assert store.read("model/unet/model.bin") == store.read("clips/ab/one.mp4") == b"new"
    assert store.sha256("clips/ab/one.mp4") == hashlib.sha256(b"new").hexdigest()
    for _ in range(2):
        store.delete("clips/ab/one.mp4")
    assert not store.exists("clips/ab/one.mp4")
    with pytest.raises(FileNotFoundError, match=r"clips/ab/one\.mp4"):
        store.read("clips/ab/one.mp4")
    with pytest.raises(FileNotFoundError, match=r"clips/ab/one\.mp4"):
        store.sha256("clips/ab/one.mp4")


def test_a_file_is_moved_over_what_was_there(store: Store) -> None:
    store.write("records/part", b"damaged")
    store.write("damaged/records/part", b"older")
    store.move("records/part", "damaged/records/part")
    assert store.read("damaged/records/part") == b"damaged" and not store.list("records")
    with pytest.raises((StoreError, FileNotFoundError)):
        store.move("records/part", "x")


def test_a_link_is_moved_and_what_it_leads_to_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    run = Store(str(tmp_path / "run"))
    run.write("records/part-0.parquet", b"x")
    link = tmp_path / "run" / "records" / "part-evil.parquet"
    link.symlink_to(tmp_path / "secret")
    run.move("records/part-evil.parquet", "damaged/part-evil.parquet")
    assert (tmp_path / "run" / "damaged" / "part-evil.parquet").is_symlink() and not link.is_symlink()


def test_deleting_all_below_a_folder_leaves_its_neighbours(store: Store) -> None:
    for path in ("checkpoints/1/a", "checkpoints/1/b/c", "checkpoints/10/a"):
        store.write(path, b"x")
    store.delete_all("checkpoints/1")
    store.delete_all("checkpoints/absent")
    assert store.list("checkpoints") == ["checkpoints/10/a"]


def test_create_refuses_other_bytes_and_takes_equal_ones(store: Store) -> None:
    store.create("job.json", b"{}")
    store.create("job.json", b"{}")
    with pytest.raises(StoreConflict, match=r"job\.json") as caught:
        store.create("job.json", b"{1}")
    assert caught.value.fix
    assert store.read("job.json") == b"{}"


def test_list_shows_all_below_a_folder_sorted_and_relative_to_the_root(store: Store) -> None:
    for path in ("clips/b.mp4", "clips/a/x.mp4", "clips2/c.mp4", "job.json"):
        store.write(path, b"1")
    assert store.list("clips") == ["clips/a/x.mp4", "clips/b.mp4"]
    assert store.list("") == ["clips/a/x.mp4", "clips/b.mp4", "clips2/c.mp4", "job.json"]
    assert store.list("records") == store.children("records") == []
    assert store.children("clips") == ["clips/a/", "clips/b.mp4"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../up", "a/../../up", "a//b", "a/", "", ".", "a\\b", "a\0b"]
)
def test_paths_that_leave_the_root_are_refused(store: Store, path: str) -> None:
    with pytest.raises(StoreError, match="not a path inside the output"):
        store.write(path, b"1")


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("job.json", b"{}")
    assert pickle.loads(pickle.dumps(store)).read("job.json") == b"{}"


def test_of_many_creates_at_once_one_wins(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    conflicts = losers_of_a_race(store, "driver.lock", num_creators=16)
    assert len(conflicts) == 15
    assert int(store.read("driver.lock")) not in conflicts


def test_local_writes_leave_nothing_else_and_obey_the_umask(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("job.json", b"{}")
    store.create("driver.lock", b"{}")
    assert sorted(os.listdir(tmp_path)) == ["driver.lock", "job.json"]
    (tmp_path / ".framefleet-0123").write_bytes(b"half, of a writer that was killed")
    assert store.list("") == ["driver.lock", "job.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "job.json").stat().st_mode) == 0o666 & ~umask


def test_a_local_error_names_the_place_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "clips").write_bytes(b"a file where a folder should be")
    with pytest.raises(StoreError, match=r"could not write .*clips/one\.mp4") as caught:
        Store(str(tmp_path)).write("clips/one.mp4", b"1")
    assert caught.value.fix
    with pytest.raises(NoFile, match="File name too long"):
        Store(str(tmp_path / ("x" * 300))).write("job.json", b"{}")


def test_relative_and_file_urls_mean_the_same_place_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("out")
    monkeypatch.chdir("/")
    store.write("job.json", b"{}")
    assert Store(f"file://{tmp_path}/out").read("job.json") == b"{}"
    assert store.url_of("job.json") == f"{tmp_path}/out/job.json"


def test_secrets_are_in_no_text_and_no_error() -> None:
    options = {"token": "hunter22", "client_kwargs": {"aws_secret_access_key": "deep-secret"}}
    store = Store("ftp://me:pa55word@127.0.0.1:1/run", options, outage_s=0)
    with pytest.raises(StoreError) as caught:
        store.read("job.json")
    texts = [repr(store), str(store), store.url_of("x"), str(caught.value), repr(caught.value.__cause__)]
    assert store.url_of("x") == "ftp://127.0.0.1:1/run/x"
    assert not any(secret in text for text in texts for secret in ("pa55word", "hunter22", "deep-secret"))


def test_an_option_that_a_store_does_not_take_is_a_mistake_of_the_job() -> None:
    store = Store("http://127.0.0.1:9/run", {"client_kwargs": {"region_name": "x"}})
    with pytest.raises(JobError, match=r"no library takes 'region_name'\n.*leave it out"):
        store.list("")


def test_secrets_in_another_librarys_message_are_blotted_out() -> None:
    store, refused = Store("failing://run", {"secret": "s3cr3t-value"}), OSError("refused s3cr3t-value")
    with failing([refused]), pytest.raises(StoreError, match=r"refused \*\*\*") as caught:
        store.write("job.json", b"{}")
    assert caught.value.__cause__ is None


def links_to(place: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(place)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, links_to("/dev/zero"), links_to("job.json")])
def test_what_is_no_file_is_refused_and_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "job.json")
    with pytest.raises(NoFile, match=r"job\.json is not a file"):
        Store(str(tmp_path)).read("job.json")


@pytest.mark.parametrize("place", ["job.yaml", "job.yaml/below"])
def test_a_file_in_the_place_of_the_folder_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("model: m")
    with pytest.raises(NoFile, match=r"/job\.yaml is a file\nhint: choose a folder"):
        Store(str(tmp_path / place)).write("clips/one.mp4", b"1")


def test_behind_a_link_that_leads_out_nothing_is_changed(tmp_path: Path) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    (home / "data").mkdir(parents=True)
    (home / "data" / "thesis").write_text("mine")
    run.mkdir()
    (run / "gallery").symlink_to(home)
    store = Store(str(run))
    for change in (
        lambda: store.write("gallery/data/thesis", b"x"),
        lambda: store.write("gallery/new/file", b"x"),
        lambda: store.create("gallery/file", b"x"),
        lambda: store.upload("gallery/file", home / "data" / "thesis"),
        lambda: store.delete("gallery/data/thesis"),
        lambda: store.delete_many(["gallery/data/thesis"]),
        lambda: store.delete_all("gallery/data"),
    ):
        with pytest.raises(NoFile, match="a link on the way to it leads out"):
            change()
    with pytest.raises(StoreError):
        store.delete_all("gallery")
    assert [path.name for path in home.rglob("*")] == ["data", "thesis"]
    assert store.read("gallery/data/thesis") == b"mine"


def test_links_that_stay_inside_and_those_of_single_files_are_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "large" / "clips").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "run").symlink_to("large")  # the root itself may be one
    store = Store(str(tmp_path / "run"))
    (tmp_path / "large" / "more").symlink_to("clips")
    (tmp_path / "large" / "report.html").symlink_to(tmp_path / "elsewhere")
    store.write("more/a", b"a")
    assert store.read("clips/a") == b"a"
    store.write("report.html", b"ours")  # takes the link's place
    assert (tmp_path / "elsewhere").read_text() == "theirs"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        *(
            (url, "is not a URL")
            for url in ("http://[bad", "s3://[bad/run", "simplecache::http://host:99999/x")
        ),
        ("nosuch://user:pa55word@bucket/run", "nosuch://bucket/run"),
    ],
)
def test_what_is_no_url_is_the_users_to_change(url: str, problem: str) -> None:
    with pytest.raises(JobError, match=problem):
        Store(url)


@pytest.mark.parametrize(
    "url", ["zip://x::{}/no.zip", "tar://x::{}/no.zip", "zip://x::{}/none.zip", "reference://x"]
)
def test_what_no_store_can_be_opened_from_is_the_users_to_change(url: str, tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"no archive")
    for use in (Store.read, Store.list, Store.exists):
        with pytest.raises(JobError, match="cannot be opened"):
            use(Store(url.format(tmp_path)), "x")
