"""Records and job.json in, the same as a stranger may see them out: no folder of this machine is named."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from framefleet.api.clips import each_input, inputs_in
from framefleet.api.errors import not_ours
from framefleet.api.outputs import RECORD_FIELDS, RECORDS, Store
from framefleet.api.texts import canonical_json, parse_json
from framefleet.jobs.job.paths import paths_in
from framefleet.pipeline.outputs.parts.records import record_of
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.arguments import checked_content
from framefleet.plugins.keep.record_law import RecordLaw
from framefleet.plugins.keep.replay.recorded_row import Given, arguments_of, environment_of, inputs_of_row

INPUT_FOLDER = "inputs"  # folder of the images and videos that rows take, beside the records


def input_path(one: Mapping[str, Any]) -> str:
    """Return where an image or video of a row lies beside its record."""
    suffix = PurePosixPath(one["uri"].partition("?")[0]).suffix
    return f"{INPUT_FOLDER}/{one['sha256']}{suffix if suffix[1:].isalnum() else ''}"


def copy_inputs(store: Store, record: Mapping[str, Any], given: Given, to: Store) -> None:
    """Copy the images and videos of a row. Raises JobError for a record that framefleet did not write."""
    ours = record_of({name: record.get(name) for name in RECORD_FIELDS.names}, store.url_of(RECORDS))
    environment_of(ours)
    arguments = arguments_of(ours)
    read = inputs_of_row(store, arguments, given).read
    for one in chain.from_iterable(map(inputs_in, arguments.values())):
        with naming(f"an input of row {record['row_id']}", one["uri"]):
            to.write(input_path(one), checked_content(one, read))


def portable_record(record: Mapping[str, Any], law: RecordLaw) -> dict[str, Any]:
    """Return a record whose places are those of a folder that holds its clip and inputs.

    law: of the output. Raises JobError for arguments that framefleet did not write.
    """
    places = {"uri": record["path"], "preview_path": None, "model": without_folder(record["model"])}
    if '"uri"' not in record["arguments"]:  # of most, and nothing of them has to be spelled again
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
    """Take the folders of this machine out of job.json; return what is left of each place."""
    names = {}
    for path in paths_in(claim["job"]):
        names[path.text] = without_folder(path.text)
        path.replace(names[path.text])
    return names


def without_folder(place: str) -> str:
    """Return a path or URL as anybody may see it: of a folder on this machine, only its name."""
    return place.rstrip("/").rpartition("/")[2] if place.startswith(("/", "~", ".", "file:")) else place
