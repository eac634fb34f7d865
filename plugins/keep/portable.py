"""Remove the names of this machine's folders from records and job.json, to give them to others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from framefleet.api.clips import each_input, inputs_in
from framefleet.api.errors import not_ours
from framefleet.api.outputs import RECORD_FIELDS, RECORDS, Output, Store
from framefleet.api.texts import canonical_json, parse_json, without_folder
from framefleet.jobs.job.paths import paths_in
from framefleet.pipeline.outputs.parts.records import record_of
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.arguments import checked_content
from framefleet.plugins.keep.record_law import RecordLaw
from framefleet.plugins.keep.replay.given import Given
from framefleet.plugins.keep.replay.recorded_row import arguments_of, environment_of, inputs_of_row

INPUT_FOLDER = "inputs"  # folder with the input images and videos, next to the records


def input_path(one: Mapping[str, Any]) -> str:
    """Return the path of a row's input image or video, relative to the pack."""
    suffix = PurePosixPath(one["uri"].partition("?")[0]).suffix
    return f"{INPUT_FOLDER}/{one['sha256']}{suffix if suffix[1:].isalnum() else ''}"


def copy_inputs(store: Store, record: Mapping[str, Any], given: Given, to: Store) -> dict[str, str]:
    """Copy a row's input images and videos; return their new paths by their old ones.

    Raises JobError for a record that framefleet did not write.
    """
    ours = record_of({name: record.get(name) for name in RECORD_FIELDS.names}, store.url_of(RECORDS))
    environment_of(ours)
    arguments = arguments_of(ours)
    inputs, copies = inputs_of_row(store, arguments, given), dict[str, str]()
    for one in chain.from_iterable(map(inputs_in, arguments.values())):
        with naming(f"an input of row {record['row_id']}", one["uri"]):
            copies[inputs.locate(one["uri"])] = input_path(one)
            to.write(input_path(one), checked_content(one, inputs.read))
    return copies


def copy_files(output: Output, record: Mapping[str, Any], to: Store) -> None:
    """Copy the files of a record, except those that are missing or damaged."""
    for path, content in output.files(record):
        if isinstance(content, bytes):
            to.write(path, content)


def portable_record(record: Mapping[str, Any], law: RecordLaw) -> dict[str, Any]:
    """Return a record with paths relative to a folder that holds its clip and inputs.

    law: of the output. Raises JobError for arguments that framefleet did not write.
    """
    places = {"uri": record["path"], "preview_path": None, "model": without_folder(record["model"])}
    if '"uri"' not in record["arguments"]:  # most rows have no inputs, and keep their arguments as they are
        return {**record, **places}
    try:
        arguments = {
            name: each_input(value, lambda one: {**one, "uri": input_path(one)})
            for name, value in parse_json(record["arguments"]).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"the arguments of row {record['row_id']} cannot be read: {error}"
        raise not_ours(RECORDS, problem) from error
    portable = {**record, **places, "arguments": canonical_json(arguments)}
    return portable | law.cells(portable)


def take_out_folders(claim: Any) -> dict[str, str]:
    """Remove the folders of this machine from job.json; return the shortened paths by the old ones."""
    names = {}
    for path in paths_in(claim["job"]):
        names[path.text] = without_folder(path.text)
        path.replace(names[path.text])
    return names
