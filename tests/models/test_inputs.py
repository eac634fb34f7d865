"""Images and videos behind URLs, on a real web server that does what hostile and broken ones do."""

from __future__ import annotations

import asyncio
import io
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from framefleet import Inputs
from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.rows.inputs import http_read
from framefleet.pipeline.rows.inputs.pictures import describe, open_image
from framefleet.pipeline.rows.inputs.survey import InputIndex
from tests.media_files import image_file
from tests.web_server import WebServer

SECRETS = ("s3cr3t", "secret")


@pytest.fixture
def inputs(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Inputs that may read below /img only."""
    monkeypatch.setattr(http_read, "MAX_BYTES", 1 << 20)
    return Inputs([f"{web.url}/img/"])


def problem_of(inputs: Inputs, uri: str) -> str:
    with pytest.raises(InputError) as caught:
        inputs.read(uri)
    assert caught.value.fix
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__cause__ is None
    return caught.value.problem


def test_what_lies_below_a_root_is_read(inputs: Inputs, web: WebServer) -> None:
    assert inputs.read(f"{web.url}/img/a.png") == image_file()
    assert inputs.read("a.png?size=large#top") == image_file()
    (path, headers), *_ = web.requests[1:]
    assert path == "/img/a.png?size=large"
    assert headers["User-Agent"].startswith("framefleet/")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "\uff11\uff12\uff17.0.0.1"),
    ],
)
def test_this_machine_is_not_reached_outside_of_the_roots_however_it_is_written(
    host: str, web: WebServer, inputs: Inputs
) -> None:
    port = web.url.rpartition(":")[2]
    with pytest.raises(InputError) as caught:
        inputs.read(f"http://{host}:{port}/other/a.png")
    assert "which is not a public address" in caught.value.problem or "no host" in caught.value.problem
    assert web.requests == []


def test_a_name_is_judged_by_the_address_that_is_connected_to(
    web: WebServer, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(web.url.rpartition(":")[2])
    lookups = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        lookups.append(host)  # public when it is looked up to be checked, and then this machine
        address = "93.184.215.14" if len(lookups) % 2 == 0 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert "rebind.example is at 127.0.0.1" in problem_of(inputs, f"http://rebind.example:{port}/a.png")
    assert len(lookups) == 1
    assert web.requests == []


def test_redirects_within_the_roots_are_followed(inputs: Inputs, web: WebServer) -> None:
    web.redirects |= {"/img/1": "/img/2", "/img/2": f"{web.url}/img/a.png"}
    assert inputs.read("1") == image_file()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("/private", "127.0.0.1 is at 127.0.0.1, which is not a public address"),
        ("http://localhost:{port}/img/a.png", "localhost is at"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is at 169.254.169.254, which is not"),
        ("file:///etc/passwd", "it redirects to 'file:///etc/passwd', but"),
        ("http://me:s3cr3t@h/", "it redirects to 'http://h/', but it contains a user or a password"),
        ("ftp://h/?s3cr3t", "it redirects to 'ftp://h/', but"),
        ("http://[::1", "it redirects to something that is not a URL"),
    ],
)
def test_a_redirect_out_of_the_roots_is_judged_anew(
    target: str, problem: str, inputs: Inputs, web: WebServer
) -> None:
    web.redirects["/img/1"] = target.format(port=web.url.rpartition(":")[2])
    assert problem_of(inputs, f"{web.url}/img/1?sig=s3cr3t").startswith(problem)
    assert web.paths() == ["/img/1?sig=s3cr3t"]


def test_redirects_without_end_are_refused(inputs: Inputs, web: WebServer) -> None:
    web.redirects["/img/1"] = "/img/1"
    assert problem_of(inputs, "1") == "it redirects more than 5 times"
    assert len(web.requests) == 6


@pytest.mark.parametrize(
    ("path", "problem", "num_requests"),
    [
        ("none.png", "it cannot be read: 404 Not Found", 1),
        ("status?403,403,403", "it cannot be read: 403 Forbidden", 1),
        ("status?503,429,429", "it cannot be read: 429 Too Many Requests", 3),
        ("status?429,429,599", "it cannot be read: 599", 3),
        ("status?204", "it cannot be read: 204 No Content", 1),
        ("bad/cut_off", "it cannot be read: the connection failed", 3),
        ("bad/no_http", "it cannot be read: the connection failed", 1),
        ("bad/huge", "it is larger than 1,048,576 bytes", 1),
        ("bad/endless", "it is larger than 1,048,576 bytes", 1),
        ("bad/gzip_bomb", "its host compresses it, although we did not ask for that", 1),
    ],
)
def test_what_a_server_does_wrong_is_told_and_tried_again_where_that_may_help(
    path: str, problem: str, num_requests: int, inputs: Inputs, web: WebServer
) -> None:
    assert problem_of(inputs, path) == problem
    assert len(web.requests) == num_requests


def test_a_server_that_recovers_is_asked_again(inputs: Inputs) -> None:
    assert inputs.read("status?500,429") == image_file()


def test_rows_of_a_table_on_a_private_host_need_that_host_among_the_roots(web: WebServer) -> None:
    base = f"{web.url}/img"
    with pytest.raises(InputError) as caught:
        Inputs([], base=base).read("a.png")
    assert caught.value.problem == "127.0.0.1 is at 127.0.0.1, which is not a public address"
    assert f"add '{web.url}/' to inputs.roots" in caught.value.fix
    assert not web.requests
    assert Inputs([f"{web.url}/"], base=base).read("a.png") == image_file()


@pytest.mark.parametrize(("path", "limit"), [("silent", "SILENCE_S"), ("trickle", "TOTAL_S")])
def test_a_server_that_takes_for_ever_is_given_up(
    path: str, limit: str, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_read, limit, 0.2)
    with pytest.raises(InputError, match="no answer in time"):
        Inputs([web.url]).read(f"{web.url}/img/bad/{path}")


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("http://127.0.0.1:1/a.png", "it cannot be read: the connection failed"),
        (f"http://{'a' * 64}.com/a.png", "it cannot be read: there is no host with that name"),
        ("http://a..b/a.png", "it cannot be read: there is no host with that name"),
    ],
)
def test_a_host_that_is_not_there_is_told(uri: str, problem: str) -> None:
    assert problem_of(Inputs(["http://127.0.0.1:1/"]), uri) == problem


def test_a_host_without_a_valid_certificate_is_refused(web: WebServer) -> None:
    url = web.url.replace("http:", "https:")
    assert problem_of(Inputs([url]), f"{url}/img/a.png").startswith("it cannot be read: ")


def test_proxies_of_the_environment_are_not_asked(
    inputs: Inputs, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert inputs.read("a.png") == image_file()


def test_the_password_of_a_root_goes_to_what_lies_below_it(web: WebServer) -> None:
    root = web.url.replace("http://", "http://me:s3cr3t@") + "/img"
    web.redirects["/img/1"] = "/img/a.png"
    assert Inputs([root]).read("1") == image_file()
    assert [headers["Authorization"] for _, headers in web.requests] == ["Basic bWU6czNjcjN0"] * 2
    assert problem_of(Inputs([root]), "none.png?sig=s3cr3t") == "it cannot be read: 404 Not Found"


def test_many_threads_and_a_running_loop_may_read_at_once(inputs: Inputs) -> None:
    async def read() -> bytes:
        return inputs.read("a.png")

    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda _: inputs.read("a.png"), range(64)))
    assert found | {asyncio.run(read())} == {image_file()}


def test_a_survey_reads_each_url_once_and_says_what_is_wrong(inputs: Inputs, web: WebServer) -> None:
    with closing(InputIndex(inputs)) as index:
        index.prefetch([("a.png", "image"), ("none.png", "image"), ("page", "image")] * 3)
        assert index.find("a.png", "image") == describe(image_file(), "image")
        for uri, reason in (
            ("none.png", "it cannot be read: 404 Not Found"),
            ("page", "it is a web page, not an image"),
        ):
            answer = index.find(uri, "image")
            assert isinstance(answer, Refused) and answer.reason == reason and answer.fix
    assert sorted(web.paths()) == ["/img/a.png", "/img/none.png", "/img/page"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "L", "1"])
@pytest.mark.parametrize("format", ["png", "webp", "tiff", "gif"])
def test_an_image_is_what_diffusers_makes_of_the_same_bytes(mode: str, format: str) -> None:
    from diffusers.utils import load_image

    exif = Image.Exif()
    exif[0x0112] = 6
    content = image_file(format, mode, exif=exif)
    # not by a path: Pillow maps some TIFFs then, and forgets to turn them
    ours, theirs = open_image(content), load_image(Image.open(io.BytesIO(content)))
    assert ours.size == theirs.size and np.array_equal(np.asarray(ours), np.asarray(theirs))
