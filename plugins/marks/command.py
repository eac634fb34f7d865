"""The command `framefleet trace`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.text import Text
from typer import Argument, Exit, Option

from framefleet.api.commands import AsJson, StorageSets, stderr, stdout
from framefleet.api.errors import count_text

if TYPE_CHECKING:
    from framefleet.plugins.marks.trace import Traced

_SIGNERS = {
    "own": "with the output's own certificate",
    "foreign": "NOT with the certificate of the output with this row",
    "trusted": "trusted",
    "unknown": "unknown signer",
}
_STATES = {
    "intact": "valid, and the file is unchanged",
    "changed": "valid, but the file was changed",
    "forged": "INVALID: altered after signing",
    "unreadable": "damaged",
}
_MAX_SHOWN = 200  # characters of a prompt


def trace_command(
    files: Annotated[list[Path], Argument(metavar="FILE", help="Files, or folders of files.")],
    outputs: Annotated[
        list[str] | None,
        Option(
            "--output",
            help="Output to search for the row, or a text file that lists outputs; repeatable.",
        ),
    ] = None,
    trust: Annotated[
        str | None, Option("--trust", metavar="PEM", help="PEM file with the certificates that you trust.")
    ] = None,
    watermarks: Annotated[
        list[str] | None,
        Option(
            "--watermark",
            metavar="NAME=WEIGHTS",
            help="Also look for this watermark: videoseal, audioseal or trustmark; repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
    sets: StorageSets = None,
) -> None:
    """Find the row that a file came from: by its digest, its signed manifest or its watermark.

    Also shows the marks in each file, even if framefleet did not make it. Exit code 0: all files were found.
    1: some were not.
    """
    from framefleet.api.jobs import places, storage_options
    from framefleet.plugins.marks.trace import open_outputs, trace_files

    opened = open_outputs(outputs or [], storage_options(sets))
    num_files = num_found = 0
    for traced in trace_files(files, opened, trust, places(watermarks or [], "--watermark")):
        num_files, num_found = num_files + 1, num_found + (traced.found_by is not None)
        if as_json:
            stdout.say(json.dumps(asdict(traced), ensure_ascii=False, default=str))
        else:
            for line in _lines(traced):
                stdout.say(line)
    stderr.say(f"{count_text(num_files, 'file')}: {num_found:,} found")
    raise Exit(0 if num_found == num_files else 1)


def _lines(found: Traced) -> Iterator[Text | str]:
    if found.problem:
        yield _line(found.file, found.problem)
        return
    if found.found_by is None:
        yield Text(_line(found.file, "not found"), style="yellow")
        if found.hint:
            yield _line("  hint", found.hint)
    else:
        of = f" in {found.output}" if found.output else ""
        yield Text(_line(found.file, f"row {found.row_id}{of}, by its {found.found_by}"), style="green")
    if found.candidates:
        yield _line("  it may be one of", ", ".join(found.candidates))
    if found.record:
        from framefleet.api.outputs import told_arguments

        prompt = str(told_arguments(found.record).get("prompt") or "")
        shown = prompt if len(prompt) <= _MAX_SHOWN else f"{prompt[:_MAX_SHOWN]}..."
        yield _line("  prompt", f"{shown} (seed {found.record['seed']})")
        yield _line("  model", f"{found.record['model']}, license {found.record['license'] or 'unknown'}")
    if found.marks:
        if manifest := found.marks.manifest:
            state = _STATES[manifest.state]
            if found.signer:
                state += (
                    f"; signed by {manifest.signer or 'a signer without a name'}, {_SIGNERS[found.signer]}"
                )
            if manifest.signed_at:
                state += f", at {manifest.signed_at}" + (" (time stamp)" if manifest.has_time else "")
            if manifest.generator:
                state += f"; made by {manifest.generator}"
            yield _line("  manifest", state)
            if manifest.ingredients:
                yield _line("  made from", ", ".join(manifest.ingredients))
        for mark in found.marks.watermarks:
            yield _line("  watermark", f"{mark.name} in the {mark.part}: row {mark.prefix}...")
        if label := found.marks.label:
            fields = {name: text for name, text in label.aigc if text}
            parts = [label.source_type or "", ", ".join(f"{name} {text}" for name, text in fields.items())]
            yield _line("  label", "; ".join(filter(None, parts)))
        if not (found.marks.manifest or found.marks.watermarks or found.marks.label):
            yield "  no marks"
    if found.changes:
        yield _line("  changed", "; ".join(found.changes))


def _line(name: str, text: str) -> str:
    """Return text of a file as one line, so that it cannot forge lines of output."""
    return f"{name}: {text}".replace("\n", "\\n")
