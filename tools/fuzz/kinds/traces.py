"""Files of anybody's that are traced: signed ones that were changed, and what is no file at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

from tools.fuzz import hostile
from tools.fuzz.case import Case, command
from tools.fuzz.material import Material

NAMES = ("a.mp4", "b.png", "c\n.mp4", "d\x1b[31m.webp", "e\u202egnp.exe", "f.png.zip", "g")


def traces(rng: Random, folder: Path, material: Material) -> Case:
    """A folder of such files, or one of them, with an output and certificates that may be bad too."""
    output, clips = material.marked
    (folder / "files").mkdir()
    honest = [*clips, *material.images.values(), *material.videos.values()]
    names = rng.sample(NAMES, rng.choice((1, 2, 4)))
    for name in names:
        _write(rng, folder / "files" / name, rng.choice(clips) if rng.random() < 0.7 else rng.choice(honest))
    arguments = [rng.choice(("files", "files", f"files/{names[0]}", "nothing"))]
    if rng.random() < 0.5:
        shutil.copytree(output, folder / "out")
        _no_file(rng, folder / "list.txt")
        arguments += ["--output", rng.choice(("out", "out", "list.txt", "files"))]
    if rng.random() < 0.3:
        _write(rng, folder / "trust.pem", b"-----BEGIN CERTIFICATE-----\n")
        arguments += ["--trust", "trust.pem"]
    if rng.random() < 0.5:
        arguments.append("--json")
    return Case(told=f"trace {arguments} of {names}", run=command("trace", *arguments), codes=(0, 1, 2))


def _write(rng: Random, path: Path, content: bytes) -> None:
    draw = rng.random()
    if draw < 0.75:
        path.write_bytes(hostile.mutated_bytes(rng, content))
    elif draw < 0.85:
        path.write_bytes(content)
    else:
        _no_file(rng, path)
    if rng.random() < 0.2:
        _no_file(rng, path.with_name(f"{path.name}.xmp"))


def _no_file(rng: Random, path: Path) -> None:
    """Put something there that is read for ever, leads elsewhere or has no end."""
    kind = rng.choice(("pipe", "link", "sparse", "folder", "text"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", "nowhere", path.name)))
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text(hostile.cell(rng))
    else:
        with open(path, "wb") as file:
            file.truncate(40 << 30)
