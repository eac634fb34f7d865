"""Rows and clips as a tar that the webdataset library reads: `<row_id>.mp4`, `.json`, `.txt` for each row."""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from framefleet.jobs.export.labels import CAPTION, prompt_of
from framefleet.jobs.export.shard import Target, file_names
from framefleet.pipeline.outputs.parts.parts import rows_of


class TarShard:
    """Members have no owner and no time: equal rows give equal bytes."""

    def __init__(self, target: Target, name: str) -> None:
        self._target, self._name = target, self.path_of(name)
        self._file = target.scratch / self._name
        self._tar = tarfile.open(self._file, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.tar"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        named = zip(rows_of(rows, "records"), file_names(rows), clips, strict=True)
        for row, name, clip in named:
            values = {column: row[column] for column in self._target.columns}
            self._write(name, clip)
            self._write(f"{row['row_id']}.json", json.dumps(_plain(values), ensure_ascii=False).encode())
            text = row[CAPTION] if CAPTION in self._target.added else prompt_of(row)
            self._write(f"{row['row_id']}.txt", text.encode("utf-8", "replace"))

    def finish(self) -> None:
        self._tar.close()
        self._target.place.upload(self._name, self._file)
        self._file.unlink()

    def _write(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))


def _plain(value: Any) -> Any:
    """Return what JSON has of a cell: times as ISO 8601, bytes as base64, no number for what is none."""
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case None | bool() | int() | str():
            return value
        case _:  # a decimal, a length of time
            return str(value)
