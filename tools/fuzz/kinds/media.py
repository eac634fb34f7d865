"""Pictures and videos that are damaged, huge, or something else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from random import Random

from PIL import Image

from tests.jobs import job_values, write_job, write_table
from tests.tiny import SMALLEST
from tools.fuzz import hostile
from tools.fuzz.case import Case, command
from tools.fuzz.material import Material

MODELS = {"image": "wan_i2v", "video": "wan_v2v"}


def media(rng: Random, folder: Path, material: Material) -> Case:
    """Rows that start from such a file."""
    kind = rng.choice(("image", "video"))
    honest = material.images if kind == "image" else material.videos
    rows = []
    for number in range(rng.choice((1, 4, 20))):
        ending, content = rng.choice(list(honest.items()))
        draw = rng.random()
        if draw < 0.75:
            content = hostile.mutated_bytes(rng, content)
        elif draw < 0.9:
            content = rng.choice(BOMBS)(rng)
        name = f"{number}.{rng.choice((ending, 'png', 'mp4', 'bin'))}"
        (folder / name).write_bytes(content)
        rows.append(
            {
                "prompt": "a ball",
                kind: rng.choice((name, f"./{name}", name, hostile.cell(rng))),
            }
        )
    write_table(folder / "t.parquet", rows)
    model = MODELS[kind]
    values = job_values(folder / "t.parquet", folder / "out", model=model) | {
        "model": str(material.model(model)),
        "defaults": SMALLEST[model],
        "on_invalid": rng.choice(("fail", "skip")),
    }
    write_job(folder / "job.yaml", values)
    return Case(told=f"{len(rows)} files as {kind}", run=command("plan", "job.yaml"))


def _png_of(width: int, height: int) -> bytes:
    """Return a PNG whose header claims that size, with hardly any data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def _blank(rng: Random) -> bytes:
    """Return a large picture of one colour, which is a small file."""
    buffer = io.BytesIO()
    side = rng.choice((4096, 8000))
    Image.new("L", (side, side)).save(buffer, format=rng.choice(("png", "webp", "gif")), lossless=True)
    return buffer.getvalue()


def _long_gif(rng: Random) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("L", (500, 500), number % 256) for number in range(100)]
    frames[0].save(buffer, format="gif", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BOMBS = (
    lambda rng: _png_of(2**31 - 1, 2**31 - 1),
    lambda rng: _png_of(0, 1),
    lambda rng: _png_of(60_000, 60_000),
    lambda rng: _png_of(8000, 8000),
    _blank,
    _long_gif,
    lambda rng: b"",
    lambda rng: rng.randbytes(100),
    lambda rng: b"<svg xmlns='x'><image href='file:///etc/passwd'/></svg>",
    lambda rng: b"%!PS\n(a) run",
    lambda rng: b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n",
    lambda rng: b"ffconcat version 1.0\nfile /etc/passwd\n",
)
