"""Write a small table and a job for the shipped model into a folder."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from framefleet.api.errors import JobError, Refused, count_text
from framefleet.api.jobs import Job, load_job
from framefleet.api.models import inspect_model
from framefleet.api.outputs import Output, Store
from framefleet.pipeline.model.specs.check import check_argument
from framefleet.pipeline.model.specs.signature import ScalarKind

PROMPTS = Path(__file__).with_name("prompts.csv")
MODEL = Path(__file__).parent / "shapes" / "model"
MAX_TOKENS = 64  # of a prompt: its bytes and an end token


class Size(NamedTuple):
    """Size of a clip, in frames and pixels."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"


SMALLEST, LARGEST = Size(9, 64, 64), Size(33, 128, 128)  # range that the model was trained for


def read_size(text: str) -> Size:
    """Read a size such as "9x64x64". Raises JobError."""
    numbers = text.split("x")
    if len(numbers) != len(Size._fields) or not all(number.isdecimal() for number in numbers):
        raise JobError(f"size {text!r} is not frames, height and width", "write it as 9x64x64")
    return Size(*map(int, numbers))


def prepare_demo(
    folder: Path, words: Sequence[str] = (), size: Size | None = None, *, num_seeds: int = 1
) -> Job:
    """Put the table and job.yaml into `folder`; return the job.

    words: the user's prompts, added to the table; without any, the table is the shipped one. size: of their
    clips. num_seeds: clips per prompt. Raises JobError if the model cannot render these, or if the folder
    belongs to another job, cannot be written, or has a table without a column for them.
    """
    if size and not words:
        raise JobError(f"size {size} is for your own prompts", "add a prompt")
    sizes = size._asdict() if size else {}
    _check(words, sizes)
    table, file = folder / "prompts.csv", folder / "job.yaml"
    job = {
        "table": table.name,  # next to this file
        "output": ".",
        "model": {"path": str(MODEL), "device": "cpu"},
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    content = yaml.safe_dump(job, sort_keys=False)
    if file.exists():
        if file.read_bytes() != content.encode():
            raise JobError(f"{file} is not the demo's job file", "choose another --output")
    elif folder.is_dir() and Output(Store(str(folder))).is_begun:
        raise JobError(f"{folder} holds clips of another job", "choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder} cannot be a folder: {error.strerror}", "choose another --output") from error
    if words:
        _add(table, words, sizes, num_seeds)
    elif not table.exists():
        shutil.copyfile(PROMPTS, table)
    file.write_text(content, encoding="utf-8")
    return load_job(file)


def _add(table: Path, words: Sequence[str], size: Mapping[str, int], num_seeds: int) -> None:
    """Add a row for each prompt and seed. Repeated rows are rendered only once."""
    try:
        text = table.read_text(encoding="utf-8-sig") if table.exists() else ""
    except UnicodeDecodeError:
        raise JobError(f"{table} is not UTF-8", "save it as CSV UTF-8") from None
    text = text or PROMPTS.read_text(encoding="utf-8").splitlines()[0]
    columns = next(csv.reader(io.StringIO(text)))
    rows = [{"prompt": prompt, "seed": seed, **size} for prompt in words for seed in range(num_seeds)]
    for name in rows[0]:
        if name not in columns:
            raise JobError(f"{table} has no column {name!r}", "choose another --output")
    longer = io.StringIO(newline="")
    longer.write(text if text.endswith("\n") else f"{text}\n")
    csv.DictWriter(longer, columns, lineterminator="\n").writerows(rows)
    new = table.with_suffix(".new")
    new.write_text(longer.getvalue(), encoding="utf-8")
    new.replace(table)


def _check(words: Sequence[str], size: Mapping[str, int]) -> None:
    """Raise JobError for rows that the model cannot render, since in the table they would stop all rows."""
    for prompt in words:
        try:
            length = len(prompt.encode())
        except UnicodeEncodeError:  # a terminal passes on whatever was typed
            raise JobError(f"{prompt!a} has bytes that are not UTF-8", "write it in UTF-8") from None
        if length >= MAX_TOKENS:
            raise JobError(
                f"{prompt!r} has {count_text(length, 'byte')}, but the model reads {MAX_TOKENS - 1}",
                "use fewer words",
            )
    for name, value in size.items():
        least, most = getattr(SMALLEST, name), getattr(LARGEST, name)
        if not least <= value <= most:
            raise JobError(f"{name} is {value}", f"use {least} to {most}, as the model was trained for")
    spec = inspect_model(MODEL)
    texts: list[tuple[str, Any, ScalarKind]] = [("prompt", prompt, "str") for prompt in words]
    numbers: list[tuple[str, Any, ScalarKind]] = [(name, value, "int") for name, value in size.items()]
    for name, value, kind in texts + numbers:
        checked = check_argument(name, value, kind, spec)
        if isinstance(checked, Refused):
            raise JobError(f"{name} is {value!r}, but {checked.reason}", checked.fix)
