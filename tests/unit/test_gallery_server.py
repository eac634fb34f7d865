"""A served gallery keeps picks in its output, whoever looks, and answers nobody who does not have its URL."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from framefleet import GalleryServer, JobError, Store, gallery
from framefleet.plugins import picks as picks_file
from framefleet.plugins.picks import PickKeeper, picked
from tests.gallery_output import write_output

ROW = f"{1:032x}"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = write_output(tmp_path_factory.mktemp("output"), [{"prompt": f"ball {n}"} for n in range(3)])
    gallery(store.url_of(""))
    return store


@pytest.fixture
def s3_like() -> Store:
    """Return an output in a store that can neither append nor create on condition."""
    return Store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def served(output: Store) -> Iterator[GalleryServer]:
    output.delete("stars.jsonl")
    output.delete_all("stars")
    with GalleryServer(output) as server:
        yield server


def ask(
    served: GalleryServer,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    token: str | None = None,
) -> tuple[int, bytes]:
    """Return the status and the content of an answer. body: of a POST. token: in place of the right one."""
    place = urlsplit(served.url)
    sent = (
        {"Origin": f"http://{place.netloc}", "Content-Type": "application/json"} if body is not None else {}
    )
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    url = f"/{place.path.split('/')[1] if token is None else token}/{path}"
    connection = http.client.HTTPConnection(place.netloc, timeout=120)
    connection.request("GET" if body is None else "POST", url, content, {**sent, **(headers or {})})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_and_its_clips_are_served_and_nothing_else(served: GalleryServer, output: Store) -> None:
    with urlopen(served.url) as answer:
        assert b"connect-src 'self'" in answer.read()
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    clip = output.list("clips")[0]
    content = output.read(clip)
    assert ask(served, clip) == (200, content)
    assert ask(served, clip, headers={"Range": "bytes=5-9"}) == (206, content[5:10])
    assert ask(served, clip, headers={"Range": "bytes=5-"}) == (206, content[5:])
    assert ask(served, clip, headers={"Range": "bytes=99999999-"})[0] == 416
    for path in ("job.json", "records/", "gallery/../job.json", "clips/%2e%2e/job.json", "", "gallery/no"):
        assert ask(served, path)[0] == 404, path


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"row_id": ROW, "stars": 5}, {"Host": "evil.example"}, 421),
        ({"row_id": ROW, "stars": 5}, {"Origin": "http://evil.example"}, 403),
        ({"row_id": ROW, "stars": 5}, {"Content-Type": "text/plain"}, 415),
        ({"row_id": ROW, "stars": 5}, {"Content-Length": "99999999"}, 413),
        ({"row_id": "../x", "stars": 1}, {}, 400),
        ({"row_id": ROW, "stars": 6}, {}, 400),
        ({"row_id": ROW, "stars": True}, {}, 400),
        ({"row_id": ROW, "note": "x" * 10_001}, {}, 400),
        ({"stars": 1}, {}, 400),
        ([], {}, 400),
        (b"not json", {}, 400),
    ],
)
def test_pages_of_the_web_and_what_is_no_pick_change_nothing(
    served: GalleryServer, output: Store, body: object, headers: dict[str, str], status: int
) -> None:
    assert ask(served, "picks", body, headers)[0] == status
    for token in ("", "a" * 22, "%C3%A9"):  # of who does not know the URL
        assert ask(served, "gallery/index.html", token=token)[0] == 404
        assert ask(served, "picks", body, token=token)[0] == 404
    assert not output.exists("stars.jsonl")


@pytest.mark.parametrize("is_s3_like", [False, True])
def test_what_is_chosen_through_several_servers_at_once_is_kept(
    is_s3_like: bool, output: Store, served: GalleryServer, s3_like: Store
) -> None:
    store = s3_like if is_s3_like else output
    with GalleryServer(store) as one, GalleryServer(store) as other:
        changes = [
            {"row_id": f"{n:032x}", "stars": n % 5 + 1, "note": f"by {n % 3}: \u2028"} for n in range(40)
        ]
        servers = [(one, other)[n % 2] for n in range(40)]
        with ThreadPoolExecutor(8) as people:
            answers = list(people.map(lambda at, change: ask(at, "picks", change)[0], servers, changes))
        assert answers == [200] * 40
        changes[0] |= {"stars": 5}
        assert ask(other, "picks", changes[0])[0] == 200  # of a clip of the other server
        assert ask(one, "picks", {"row_id": changes[1]["row_id"]})[0] == 200  # and taken back
        del changes[1]
        for server in (one, other):
            picks = json.loads(ask(server, "picks")[1])
            assert sorted(({"row_id": row_id} | pick for row_id, pick in picks), key=str) == sorted(
                changes, key=str
            )
    lines = [json.loads(line) for line in store.read("stars.jsonl").splitlines()]
    assert {line["row_id"]: line["stars"] for line in lines} == {
        one["row_id"]: one["stars"] for one in changes
    }
    store.delete("stars.jsonl")  # as where a server was killed before it wrote it
    with GalleryServer(store) as server:
        assert len(json.loads(ask(server, "picks")[1])) == 39
    store.delete_all("stars")


def test_earlier_stars_and_lines_by_hand_stay_and_can_be_changed(
    output: Store, served: GalleryServer
) -> None:
    output.write("stars.jsonl", b'{"row_id": "%032x", "stars": 2}\n{"row_id": "%032x"}\n' % (7, 8))
    assert dict(json.loads(ask(served, "picks")[1]))[f"{7:032x}"]["stars"] == 2
    for stars in (1, 2):
        assert ask(served, "picks", {"row_id": ROW, "stars": stars})[0] == 200
        chosen = picked(output.url_of("stars.jsonl"), {}) or {}
        expected = {f"{7:032x}": 2, f"{8:032x}": None, ROW: stars}
        assert {row_id: pick.stars for row_id, pick in chosen.items()} == expected
    for number in (7, 8):
        assert ask(served, "picks", {"row_id": f"{number:032x}"})[0] == 200
    assert [row_id for row_id, _ in json.loads(ask(served, "picks")[1])] == [ROW]
    assert ask(served, "picks", {"row_id": ROW, "note": "only a note"})[0] == 200
    with pytest.raises(JobError, match="no row with a star"):
        picked(output.url_of("stars.jsonl"), {})
    put(output, "picks.jsonl", b'{"row_id": "%032x", "stars": 0}\n{"row_id": "%032x"}\n' % (7, 8))
    assert list(picked(output.url_of("picks.jsonl"), {}) or {}) == [f"{8:032x}"]


class CountedReads(Store):
    """A store that knows what was read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.paths: list[str] = []

    def read(self, path: str, count: int | None = None) -> bytes:
        self.paths.append(path)
        return super().read(path, count)


def test_files_of_earlier_servers_are_read_once(s3_like: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, numbers = iter(range(0, 1000, 3)), range(20)
    monkeypatch.setattr(picks_file, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    for number in numbers:
        pick = {"row_id": f"{number:032x}", "stars": 1, "at": 1}
        s3_like.write(f"stars/{number}.jsonl", json.dumps(pick).encode())
    store = CountedReads(s3_like.url_of(""))
    keeper = PickKeeper(store)
    for _ in range(2):  # a change just after the first look may leave the same time
        assert len(keeper.all()) == len(numbers)
    store.paths.clear()
    assert len(keeper.all()) == len(numbers) and store.paths == []
    s3_like.write("stars/7.jsonl", json.dumps({"row_id": f"{7:032x}", "stars": 4, "at": 2}).encode())
    assert keeper.all()[f"{7:032x}"].stars == 4 and store.paths == ["stars/7.jsonl"]
    s3_like.delete("stars/8.jsonl")
    assert len(keeper.all()) == len(numbers) - 1


def test_a_port_that_is_taken_and_damaged_stars_are_refused(served: GalleryServer, output: Store) -> None:
    with pytest.raises(JobError, match="choose another one with --port"):
        GalleryServer(output, port=urlsplit(served.url).port or 0)
    output.write("stars.jsonl", b"{")
    with pytest.raises(JobError, match=r"stars\.jsonl is not as framefleet wrote it"):
        GalleryServer(output)
    assert output.read("stars.jsonl") == b"{"
    output.delete("stars.jsonl")


def test_the_command_serves_until_it_is_interrupted(output: Store) -> None:
    command = [sys.executable, "-m", "framefleet", "gallery", output.url_of(""), "--serve"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        with urlopen(process.stdout.readline().strip()) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0


def put(output: Store, path: str, content: bytes = b"<script>alert(1)</script>") -> Path:
    """Put a file into an output, as a stranger does who hands it on."""
    file = Path(output.url_of(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_files_that_a_browser_could_run_are_not_served(served: GalleryServer, output: Store) -> None:
    names = "clips/aa/read.html clips/aa/x.svg clips/aa/x.js clips/aa/x.pdf clips/aa/x clips/aa/x.mp4.html"
    names += " previews/aa/x.xhtml previews/aa/x.xml previews/aa/x.MP4 gallery/evil.html gallery/evil.svg"
    for path in [*names.split(), "gallery/axes.json", "clips/aa/x.json", "clips/aa/x.xmp"]:
        file = put(output, path)
        assert ask(served, path)[0] == 404, path
        file.unlink()


def test_the_page_is_our_own_and_data_is_nothing_but_data(served: GalleryServer, output: Store) -> None:
    block = next(path for path in output.list("gallery/data"))
    for path in ("gallery/index.html", "gallery/main.js", "gallery/gallery.css"):
        before, ours = output.read(path), ask(served, path)
        put(output, path, b"alert(1)")
        assert ask(served, path) == ours and ours[0] == 200
        put(output, path, before)
    for path in (block, "gallery/manifest.js", "gallery/version.js"):
        before = output.read(path)
        assert ask(served, path) == (200, before)
        for evil in (b"alert(1)", before + b"alert(1);\n", b"framefleet.block('a\\', alert(1),'b');\n"):
            put(output, path, evil)
            assert ask(served, path)[0] == 404, evil
        put(output, path, before)


def test_what_is_served_has_a_type_of_its_own_and_a_policy(served: GalleryServer, output: Store) -> None:
    clip = put(output, "clips/aa/page.mp4")
    for path, kind in (("clips/aa/page.mp4", "video/mp4"), ("gallery/main.js", "text/javascript")):
        with urlopen(served.url.replace("gallery/index.html", path)) as answer:
            assert answer.headers["Content-Type"] == kind
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; img-src 'self'")
    with urlopen(served.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    clip.unlink()


def test_a_connection_is_closed_where_the_client_asks_for_it(served: GalleryServer, output: Store) -> None:
    place, clip = urlsplit(served.url), output.list("clips")[0]
    path = place.path.replace("gallery/index.html", clip)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=120) as client:
        head = f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.endswith(output.read(clip))


def test_links_and_pipes_are_not_served(served: GalleryServer, output: Store, tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "aa").mkdir(parents=True)
    (private / "aa/id.mp4").write_bytes(b"private")
    folder = Path(output.url_of("clips/links"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file.mp4").symlink_to(private / "aa/id.mp4")
    (folder / "folder").symlink_to(private)
    (folder / "job.mp4").symlink_to(output.url_of("job.json"))
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    for path in ("file.mp4", "folder/aa/id.mp4", "job.mp4", "pipe.mp4", "folder.mp4"):
        assert ask(served, f"clips/links/{path}")[0] == 404, path
    shutil.rmtree(folder)


@contextmanager
def sparse_clip(output: Store, size: int) -> Iterator[Path]:
    """Put a clip of zeros there that takes no room on the disk."""
    clip = put(output, "clips/aa/sparse.mp4", b"")
    os.truncate(clip, size)
    yield clip
    clip.unlink()


def test_a_range_of_a_large_file_takes_no_memory(output: Store) -> None:
    size = 3 << 30
    with sparse_clip(output, size), GalleryServer(output) as served:
        place = urlsplit(served.url)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        connection = http.client.HTTPConnection(place.netloc, timeout=120)
        url = f"/{place.path.split('/')[1]}/clips/aa/sparse.mp4"
        connection.request("GET", url, headers={"Range": f"bytes={size - (256 << 20)}-"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Length"]) == (206, str(256 << 20))
        assert sum(map(len, iter(lambda: answer.read(1 << 20), b""))) == 256 << 20
        connection.request("GET", url, headers={"Range": f"bytes={size - 5}-{size + 5}"})
        assert connection.getresponse().read() == bytes(5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_client_that_leaves_prints_nothing(output: Store, capfd: pytest.CaptureFixture[str]) -> None:
    with sparse_clip(output, 1 << 30), GalleryServer(output) as served:
        place = urlsplit(served.url)
        for _ in range(5):
            with socket.create_connection((place.hostname or "", place.port or 0)) as client:
                path = place.path.replace("gallery/index.html", "clips/aa/sparse.mp4")
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
                client.recv(10)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # sends RST
        assert ask(served, "picks")[0] == 200
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_file_that_is_cut_while_it_is_sent_is_not_taken_for_whole(output: Store) -> None:
    with sparse_clip(output, 1 << 30) as clip, GalleryServer(output) as served:
        place = urlsplit(served.url)
        connection = http.client.HTTPConnection(place.netloc, timeout=120)
        connection.request("GET", place.path.replace("gallery/index.html", "clips/aa/sparse.mp4"))
        answer = connection.getresponse()
        answer.read(1)
        os.truncate(clip, 1 << 20)
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
