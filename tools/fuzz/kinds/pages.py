"""Outputs of somebody else that are served as a page, and what browsers and others ask of the server."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from tools.fuzz import hostile
from tools.fuzz.case import Case, reported
from tools.fuzz.material import Material

PRIVATE = b"what is private of whoever serves"
ENDINGS = ("html", "svg", "mp4", "js", "xhtml", "pdf", "webp", "mp4.html", "css", "png")
ACTIVE = (
    b"text/html",
    b"image/svg",
    b"application/xhtml",
    b"application/pdf",
    b"text/xml",
    b"application/xml",
)


def pages(rng: Random, folder: Path, material: Material) -> Case:
    """A gallery or a status page of such an output, asked in odd ways; nothing of ours may be answered."""
    output, _ = material.marked
    shutil.copytree(output, folder / "out")
    (folder / "private").write_bytes(PRIVATE)
    (folder / "secrets").mkdir()
    (folder / "secrets/x.mp4").write_bytes(PRIVATE)
    paths = [_put(rng, folder) for _ in range(8)]
    if rng.random() < 0.8:
        stars = folder / "out" / rng.choice(("stars.jsonl", "stars/a.jsonl"))
        stars.parent.mkdir(exist_ok=True)
        stars.write_bytes(hostile.mutated_bytes(rng, b'{"row_id": "x", "stars": 5}\n'))
    is_gallery = rng.random() < 0.8
    requests = [_request(rng, paths) for _ in range(20)]
    told = f"{'gallery' if is_gallery else 'status'} with {paths}"
    return Case(told=told, run=reported(lambda: _serve(folder, requests, is_gallery=is_gallery)))


def _put(rng: Random, folder: Path) -> str:
    """Put a file, or a link to what is private, where files are served; return its path."""
    place = rng.choice(("clips/aa", "previews/aa", "gallery", "gallery/data", "clips/links"))
    path = f"{place}/{rng.choice('abc')}.{rng.choice(ENDINGS)}"
    file = folder / "out" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    draw = rng.random()
    if draw < 0.4:
        file.write_bytes(b"<script>alert(1)</script>")
    elif draw < 0.7:
        file.symlink_to(
            rng.choice((folder / "private", folder / "out/job.json", Path("/dev/zero"), Path(file.name)))
        )
    elif draw < 0.8:
        os.mkfifo(file)
    elif draw < 0.9 and not (folder / "out/clips/away").is_symlink():
        (folder / "out/clips").mkdir(exist_ok=True)
        (folder / "out/clips/away").symlink_to(folder / "secrets")
        return "clips/away/x.mp4"
    else:
        file.touch()
        os.truncate(file, 40 << 30)
    return path


def _request(rng: Random, paths: list[str]) -> tuple[str, str, dict[str, str], bytes]:
    """Return method, path, headers and body."""
    odd = (
        "picks",
        "gallery/index.html",
        "status.html",
        "job.json",
        "stars.jsonl",
        "../private",
        "clips/../job.json",
    )
    path = rng.choice((*paths, *paths, *odd, hostile.cell(rng)[:200]))
    headers = {"Origin": "http://HOST", "Content-Type": "application/json"} if rng.random() < 0.5 else {}
    ranges = (
        "bytes=0-",
        "bytes=5-9",
        f"bytes={39 << 30}-",
        "bytes=-5",
        "bytes=9-5",
        f"bytes=0-{10**14}",
        "x",
    )
    headers |= {"Range": rng.choice(ranges)} if rng.random() < 0.5 else {}
    body = hostile.mutated_bytes(rng, b'{"row_id": "0", "stars": 5}') if rng.random() < 0.3 else b""
    return rng.choice(("GET", "GET", "GET", "POST", "PUT", "HEAD")), path, headers, body


def _serve(folder: Path, requests: list[tuple[str, str, dict[str, str], bytes]], *, is_gallery: bool) -> None:
    from framefleet.pipeline.outputs.output import Output
    from framefleet.plugins.pages.gallery.serve import GalleryServer
    from framefleet.plugins.pages.report.live_page import StatusServer

    output = Output.open(str(folder / "out"))
    with GalleryServer(output.store) if is_gallery else StatusServer(output) as served:
        for request in requests:
            head, _, body = _ask(served.url, request).partition(b"\r\n\r\n")
            if PRIVATE in body:
                raise AssertionError(f"{request} is answered with a private file")
            of_page = request[1].startswith(("gallery/index.html", "status.html"))
            if head[9:12] in (b"200", b"206") and not of_page and any(kind in head for kind in ACTIVE):
                raise AssertionError(f"{request} is answered with what a browser runs")


def _ask(url: str, request: tuple[str, str, dict[str, str], bytes]) -> bytes:
    """Return the first megabyte of an answer, and leave."""
    method, path, headers, body = request
    place = urlsplit(url)
    lines = [f"{method} /{place.path.split('/')[1]}/{path} HTTP/1.1", f"Host: {place.netloc}"]
    lines += [f"{name}: {value}".replace("HOST", place.netloc) for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    answer = b""
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as client:
        try:
            client.sendall("\r\n".join(lines).encode() + body)
            while len(answer) < 1 << 20 and (part := client.recv(1 << 16)):
                answer += part
        except ConnectionError:  # it was refused before it was read
            pass
    return answer
