"""Tables whose bytes are damaged, or whose columns hold what no table of prompts does."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tests.jobs import job_values, prompt_rows
from tools.fuzz import hostile
from tools.fuzz.case import Case, command
from tools.fuzz.material import Material

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
FIRST_LINES = (
    b"null\n",
    b"[]\n",
    b"1\n",
    b'"a"\n',
    b"[" * 60_000,
    b'{"a":' * 60_000,
    b'{"prompt": ' + b"[" * 60_000,
    b'{"prompt": {"a": ' + b'{"a":' * 3000 + b"1" + b"}" * 3002 + b"\n",
    b'{"prompt": "x", "prompt": "y"}\n',
    b'{"prompt": "\\ud800"}\n',
    b'{"prompt": 1e999}\n',
    b'{"prompt": ' + b"9" * 5000 + b"}\n",
    b'{"": 1}\n',
    b"{}\n",
    b"\n\n\n",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b'{"prompt": "a\x00b"}\n',
    b'{"prompt": "' + b"a" * 5_000_000 + b'"}\n',
)


def planned(folder: Path, name: str, material: Material, told: str, **more: Any) -> Case:
    """Return the case of planning a job on the tiny Wan, with the table of that name in the folder."""
    values = job_values(folder / name, folder / "out") | {
        "model": str(material.model("wan")),
        "table": name,
        **more,
    }
    (folder / "job.yaml").write_text(json.dumps(values))  # which is YAML, however deep it nests
    return Case(told=told, run=command("plan", "job.yaml"))


def as_file(rng: Random, rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    """Return the rows as a file of some format, and its ending."""
    kind = rng.choice(("csv", "tsv", "jsonl", "json", "parquet", "parquet"))
    if kind == "parquet":
        buffer = io.BytesIO()
        codec = rng.choice(("snappy", "none", "zstd", "gzip", "lz4", "brotli"))
        pq.write_table(
            pa.Table.from_pylist(rows), buffer, compression=codec, use_dictionary=rng.random() < 0.5
        )
        return "parquet", buffer.getvalue()
    if kind in ("csv", "tsv"):
        buffer = io.BytesIO()
        options = pa.csv.WriteOptions(delimiter="\t" if kind == "tsv" else ",")
        pa.csv.write_csv(pa.Table.from_pylist(rows), buffer, options)
        return kind, buffer.getvalue()
    return kind, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table_bytes(rng: Random, folder: Path, material: Material) -> Case:
    """A file that is cut, changed, of another format, in another encoding, or packed."""
    kind, content = as_file(rng, prompt_rows(rng.choice((1, 3, 200))))
    draw = rng.random()
    if draw < 0.6:
        content = hostile.mutated_bytes(rng, content)
    elif draw < 0.75 and kind in ("json", "jsonl"):
        content = rng.choice((b"", content)) + rng.choice(FIRST_LINES) + rng.choice((b"", content))
    elif draw < 0.8:
        content = content.decode("utf-8", "replace").encode(
            rng.choice(("utf-16", "latin-1", "gb18030")), "replace"
        )
    elif draw < 0.9:
        kind = rng.choice(("csv", "jsonl", "parquet"))  # another than it is
    packer = rng.choice(list(PACKERS)) if rng.random() < 0.3 else ""
    packed = PACKERS[packer](content)
    name = f"t.{kind}{packer}"
    (folder / name).write_bytes(
        hostile.mutated_bytes(rng, packed) if packer and rng.random() < 0.5 else packed
    )
    return planned(folder, name, material, f"bytes of {name}")


def latin1(texts: list[str]) -> pa.Array:
    """Return a text column that says it is UTF-8, and is not."""
    stored = pa.array([text.encode("latin-1") for text in texts], pa.binary())
    return pa.Array.from_buffers(pa.string(), len(texts), stored.buffers())


def _deep(depth: int) -> pa.Array:
    kind: pa.DataType = pa.int8()
    for _ in range(depth):
        kind = pa.list_(kind)
    return pa.nulls(2, kind)


# Two cells of each; those that Parquet cannot hold are left out when it is written.
COLUMNS: tuple[Callable[[], pa.Array], ...] = (
    lambda: latin1(["caf\xe9", "plain"]),
    lambda: pa.array(["x" * 3_000_000] * 2),
    lambda: pa.array(["x", "y"]).dictionary_encode(),
    lambda: pa.DictionaryArray.from_arrays(pa.array([0, 1]), latin1(["\xe9", "b"])),
    lambda: pa.array([b"\xff\xfe", b""]),
    lambda: pa.array([[1], None]),
    lambda: pa.array([{"a": {"b": [1]}}, None]),
    lambda: pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    lambda: pa.array([{}, {}], pa.struct([])),
    lambda: _deep(30),
    lambda: _deep(200),
    lambda: pa.array([2**62, -(2**63)], pa.timestamp("s")),
    lambda: pa.array([2**62, 0], pa.timestamp("ns")),
    lambda: pa.array([2**62, 0], pa.timestamp("us", "Europe/Nowhere")),
    lambda: pa.array([2**31 - 1, -(2**31)], pa.date32()),
    lambda: pa.array([2**62, 0], pa.int64()).cast(pa.duration("s")),
    lambda: pa.array([datetime.time(1), None]),
    lambda: pa.array([decimal.Decimal("1e70"), None], pa.decimal256(76, 0)),
    lambda: pa.array([decimal.Decimal("0.1"), None], pa.decimal128(38, 30)),
    lambda: pa.array([1.5, float("nan")], pa.float16()),
    lambda: pa.array([float("inf"), float("nan")]),
    lambda: pa.array([2**64 - 1, 0], pa.uint64()),
    lambda: pa.array([True, None]),
    lambda: pa.nulls(2),
    lambda: pa.array(["\x1b]0;x\x07", "\0"]),
    lambda: pa.array(["\ufeff", "\u202e"]),
    lambda: pa.array(["", None]),
    lambda: pa.array(["a", "b"], pa.string_view()),
    lambda: pa.array(["a", "b"], pa.large_string()),
    lambda: pa.array([1, 1]),
    lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 2, pa.binary(16))),
)
NAMES = (
    "prompt",
    "seed",
    "height",
    "num_frames",
    "guidance_scale",
    "scheduler",
    "lora",
    "recipe",
    "fps",
    "tag",
    "row_id",
    "",
)


def table_types(rng: Random, folder: Path, material: Material) -> Case:
    """Columns of odd types, names and numbers."""
    columns: list[tuple[str, pa.Array]] = [] if rng.random() < 0.1 else [("prompt", pa.array(["a", "b"]))]
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(NAMES) if rng.random() < 0.8 else hostile.cell(rng)
        column = rng.choice(COLUMNS)()
        columns += [(name, column)] if _fits(column) else []
    if rng.random() < 0.05:
        columns += [(f"c{number}", pa.nulls(2)) for number in range(5000)]
    if rng.random() < 0.9:
        columns = list(dict(columns).items())
    table = pa.Table.from_arrays([column for _, column in columns], names=[name for name, _ in columns])
    is_small = table.nbytes < 10_000 and table.num_columns < 100  # writing others many times takes minutes
    times = rng.choice((1, 1, 1, 1000, 100_000)) if is_small else rng.choice((1, 20))
    if rng.random() < 0.05:
        table = table.slice(0, 0)
    pq.write_table(pa.concat_tables([table] * times), folder / "t.parquet", compression="zstd")
    told = f"columns {[(name, str(column.type)[:40]) for name, column in columns[:4]]!r:.300} x {times}"
    return planned(folder, "t.parquet", material, told, on_invalid=rng.choice(("fail", "skip")))


def _fits(column: pa.Array) -> bool:
    """Tell whether Parquet can hold it."""
    try:
        pq.write_table(pa.table({"a": column}), io.BytesIO())
    except pa.ArrowException:
        return False
    return True
