"""`framefleet trace`: what is typed, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text
from typer import Argument, Exit, Option

from framefleet.jobs.options import AsJson, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout

if TYPE_CHECKING:
    from framefleet.plugins.marks.file_marks import FoundMarks
    from framefleet.plugins.marks.trace.trace import Traced

_SIGNERS = {
    "own": "with the output's own certificate",
    "foreign": "NOT with the certificate of the output that has this row",
    "trusted": "trusted",
    "unknown": "not known here",
}
_STATES = {
    "intact": "valid, and the file is unchanged",
    "changed": "valid, but the file was changed",
    "forged": "INVALID: altered after signing",
    "unreadable": "damaged",
}
_MAX_SHOWN = 200  # characters of a prompt

_Files = Annotated[list[Path], Argument(metavar="FILE", help="Files, or folders of files.")]
_Outputs = Annotated[
    list[str] | None,
    Option(
        "--output",
        help="Output in which to look for the row, or a text file that lists outputs; repeatable.",
    ),
]
_Trust = Annotated[
    str | None, Option("--trust", metavar="PEM", help="PEM file of the certificates that you trust.")
]
_Watermarks = Annotated[
    list[str] | None,
    Option(
        "--watermark",
        metavar="NAME=WEIGHTS",
        help="Also look for this watermark: videoseal, audioseal or trustmark; repeatable.",
    ),
]


def trace_command(
    files: _Files,
    outputs: _Outputs = None,
    trust: _Trust = None,
    watermarks: _Watermarks = None,
    as_json: AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Find the row that a file came from: by its digest, its signed manifest or its watermark.

    Also shows the marks in each file, even if framefleet did not make it. Exit code 0: every file was found;
    1: some were not.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import places, storage_options
        from framefleet.plugins.marks.trace.lookup import open_outputs
        from framefleet.plugins.marks.trace.trace import trace_files

        opened = open_outputs(outputs or [], storage_options(sets))
        num_files = num_found = 0
        for found in trace_files(files, opened, trust, places(watermarks or [], "--watermark")):
            num_files, num_found = num_files + 1, num_found + (found.found_by is not None)
            if as_json:
                stdout.say(json.dumps(asdict(found), ensure_ascii=False, default=str))
            else:
                for line in _lines(found):
                    stdout.say(line)
        stderr.say(f"{num_files:,} files: {num_found:,} found")
    raise Exit(0 if num_found == num_files else 1)


def _lines(found: Traced) -> Iterator[Text | str]:
    if found.problem:
        yield _line(found.file, found.problem)
        return
    if found.found_by is None:
        yield Text(_line(found.file, "not found"), style="yellow")
    else:
        of = f" of {found.output}" if found.output else ""
        yield Text(_line(found.file, f"row {found.row_id}{of}, by its {found.found_by}"), style="green")
    if found.candidates:
        yield _line("  it may be one of", ", ".join(found.candidates))
    if found.record:
        yield from _record_lines(found.record)
    if found.marks:
        yield from _mark_lines(found, found.marks)
    if found.changes:
        yield _line("  changed", "; ".join(found.changes))


def _record_lines(record: Any) -> Iterator[str]:
    from framefleet.pipeline.outputs.parts.records import told_arguments

    prompt = str(told_arguments(record).get("prompt") or "")
    shown = prompt if len(prompt) <= _MAX_SHOWN else f"{prompt[:_MAX_SHOWN]}..."
    yield _line("  prompt", f"{shown} (seed {record['seed']})")
    yield _line("  model", f"{record['model']}, license {record['license'] or 'unknown'}")


def _mark_lines(found: Traced, marks: FoundMarks) -> Iterator[str]:
    if manifest := marks.manifest:
        said = _STATES[manifest.state]
        if found.signer:
            said += f"; signed by {manifest.signer or 'a signer without a name'}, {_SIGNERS[found.signer]}"
        if manifest.signed_at:
            said += f", at {manifest.signed_at}" + (" (time stamp)" if manifest.has_time else "")
        if manifest.generator:
            said += f"; made by {manifest.generator}"
        yield _line("  manifest", said)
        if manifest.ingredients:
            yield _line("  made from", ", ".join(manifest.ingredients))
    for mark in marks.watermarks:
        yield _line("  watermark", f"{mark.name} in the {mark.part}: row {mark.prefix}...")
    if label := marks.label:
        fields = {name: text for name, text in label.aigc if text}
        parts = [label.source_type or "", ", ".join(f"{name} {text}" for name, text in fields.items())]
        yield _line("  label", "; ".join(filter(None, parts)))
    if not (marks.manifest or marks.watermarks or marks.label):
        yield "  no marks"


def _line(name: str, text: str) -> str:
    """Return what a file says in one line, which it cannot break."""
    return f"{name}: {text}".replace("\n", "\\n")
