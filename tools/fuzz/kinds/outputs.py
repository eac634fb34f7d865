"""Outputs of somebody else: job.json and records that are damaged or lie, and what people do with them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.jobs import write_job
from tests.tiny import SMALLEST
from tools.fuzz import hostile
from tools.fuzz.case import Case, command
from tools.fuzz.material import Material

JSON_COLUMNS = ("arguments", "numerics", "environment")


def outputs(rng: Random, folder: Path, material: Material) -> Case:
    """A copy of an honest output in which something is bad."""
    honest, row_ids = material.output
    shutil.copytree(honest, folder / "out")
    (folder / "evil.py").write_text("open('was-run', 'w').close()\ndef x(pipe, request): ...\n")
    told = "; ".join(rng.choice(CHANGES)(rng, folder / "out") for _ in range(rng.choice((1, 1, 2))))
    draw, row_id = (
        rng.random(),
        rng.choice(row_ids) if rng.random() < 0.95 else hostile.text(rng).replace("\0", ""),
    )
    row_id = row_id.encode("utf-8", "replace").decode()[:10_000]
    if draw < 0.4:
        return Case(told=f"replay: {told}", run=command("replay", "out", row_id), codes=(0, 1, 2))
    if draw < 0.7:
        return Case(told=f"script: {told}", run=command("replay", "out", row_id, "--script"))
    job = {
        "table": str(honest.parent / "t.parquet"),
        "output": "out",
        "model": str(honest.parent / "model"),
        "defaults": SMALLEST["wan"],
    }
    write_job(folder / "job.yaml", job)
    return Case(told=f"plan: {told}", run=command("plan", "job.yaml"))


def _claim(rng: Random, output: Path) -> str:
    path = output / "job.json"
    if not _is_itself(path):
        return "no job.json"
    if rng.random() < 0.3:
        path.write_bytes(hostile.mutated_bytes(rng, path.read_bytes()))
        return "bytes of job.json"
    try:
        tree = json.loads(path.read_text())
    except ValueError:  # changed already
        tree = {}
    path.write_text(json.dumps(hostile.mutated_tree(rng, tree)))
    return "values of job.json"


def _part(output: Path) -> Path:
    return next(path for path in output.glob("records/*.parquet") if _is_itself(path))


def _is_itself(path: Path) -> bool:
    """Tell whether a file is none that a change made of it: reading a pipe or a device takes for ever."""
    return path.is_file() and not path.is_symlink()


def _record_bytes(rng: Random, output: Path) -> str:
    for part in output.glob("records/*.parquet"):
        if _is_itself(part):
            part.write_bytes(hostile.mutated_bytes(rng, part.read_bytes()))
    return "bytes of a record"


def _record_values(rng: Random, output: Path) -> str:
    try:
        rows: list[dict[str, Any]] = pq.read_table(_part(output)).to_pylist()
    except (pa.ArrowException, OSError, StopIteration):  # changed already
        return "as many records"
    column = (
        rng.choice(list(rows[0]))
        if rng.random() < 0.5
        else rng.choice((*JSON_COLUMNS, "recipe", "model", "scheduler"))
    )
    for row in rows:
        row[column] = _other(rng, column, row[column])
    if rng.random() < 0.1:
        for row in rows:
            del row[column]
    try:
        part = _part(output)
        pq.write_table(pa.Table.from_pylist(rows), part)
        part.rename(part.with_name("part-x.parquet"))  # a name that says nothing of its bytes
    except (pa.ArrowException, OverflowError, UnicodeError):  # what no Parquet file can hold
        return f"no other {column}"
    return f"other {column}"


def _other(rng: Random, column: str, value: Any) -> Any:
    if column in JSON_COLUMNS:
        tree = json.loads(value)
        return json.dumps(hostile.mutated_tree(rng, tree)) if rng.random() < 0.9 else hostile.text(rng)
    if column == "recipe":
        return rng.choice(("evil:x", "os:system", "generate:x", hostile.text(rng)))
    return rng.choice((hostile.text(rng), hostile.number(rng), None, hostile.value(rng)))


def _gone(rng: Random, output: Path) -> str:
    paths = sorted(path for path in output.rglob("*") if path.is_file())
    if not paths:
        return "nothing left"
    path = rng.choice(paths)
    path.unlink()
    return f"no {path.relative_to(output)}"


def _added(rng: Random, output: Path) -> str:
    name = rng.choice(
        (
            "records/part-x.parquet",
            "records/x",
            "train.json",
            "drivers.lock",
            "drivers/000001.json",
            f"pending/{'0' * 32}-{'0' * 8}.json",
            "clips/x",
            "failures/part-x.parquet",
        )
    )
    (output / name).parent.mkdir(exist_ok=True)
    content = rng.choice((b"", b"{}", b"[" * 5000, b"PAR1", rng.randbytes(50)))
    (output / name).write_bytes(content)
    return f"new {name}"


def _no_file(rng: Random, output: Path) -> str:
    paths = sorted(path for path in output.rglob("*") if _is_itself(path))
    if not paths:
        return "nothing left"
    path = rng.choice(paths)
    path.unlink()
    kind = rng.choice(("folder", "pipe", "link"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", "nowhere", path.name)))
    return f"a {kind} as {path.relative_to(output)}"


CHANGES = (
    _no_file,
    _claim,
    _claim,
    _record_bytes,
    _record_values,
    _record_values,
    _record_values,
    _gone,
    _added,
)
