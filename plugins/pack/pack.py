"""Copy some rows of an output into a folder, so that somebody else can render them again.

The folder is also an output, with only the chosen records, so `framefleet verify` can check it. It also has
scripts, versions and digests for use without framefleet, and copies of the rows' input files.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.commands import Overview
from framefleet.api.errors import FramefleetError, JobError, quoted
from framefleet.api.jobs import Claim, claim_of
from framefleet.api.outputs import CLAIM, HOW, RECORD_FIELDS, RECORDS, Output, Store, rows_of
from framefleet.api.sections import AtLeastOne
from framefleet.api.texts import parse_json, without_folder
from framefleet.jobs.job.job_json import ClaimedModel
from framefleet.jobs.job.paths import absolute_path, without_scheme
from framefleet.pipeline.model.environment import PACKAGES, device_name
from framefleet.plugins.keep.new_folder import UNFINISHED, new_folder
from framefleet.plugins.keep.pack_list import write_list
from framefleet.plugins.keep.portable import copy_inputs, portable_record, take_out_folders
from framefleet.plugins.keep.record_law import RecordLaw
from framefleet.plugins.keep.replay.given import NOTHING, Given
from framefleet.plugins.keep.replay.script import replay_script
from framefleet.plugins.keep.verify.verify import NUM_SAMPLED, sample_rows
from framefleet.plugins.picks import Pick, chosen_records, picked

_VERSION = re.compile(r"[0-9A-Za-z._+!-]+")
_LIBRARIES = ("framefleet", "torch", *PACKAGES)
_FIX = "run `framefleet repair`, or choose other rows"
_README = """\
# Clips to render again

Each row can be rendered again and compared with its record. From its authors, you only need the weights:

{commands}

FRAMEFLEET is a clone or the git+URL of its repository, in the version of requirements.txt. Replace other
names in capitals with the places of the weights on your machine. `verify` prints for each row whether it is
bit-exact; if not, by how many levels its pixels differ, and what has changed in the environment. Other
processors and GPUs add numbers in another order. The exit code is 0 if all rows are bit-exact.

`verify` also prints the digest of this pack: of pack.sha256, which lists the SHA-256 of all its files.
Compare it with the one that you were given.

To check that your weights are the same files, without framefleet:

    cd FOLDER_OF_THE_MODEL && sha256sum --check {checks}

| row | model | seed | clip | script | libraries | rendered with |
|---|---|---|---|---|---|---|
{rows}

A script needs only torch and diffusers, in the versions of its row's libraries. Set the folder of the model
in its line `MODEL = ...`.
"""
_COMMANDS = """\
    python{python} -m venv {venv}
    {venv}/bin/pip install -r {requirements} FRAMEFLEET
    {venv}/bin/framefleet verify . {options}"""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Packed(Overview):
    """The result of `pack`."""

    folder: str
    digest: str  # SHA-256 of the list of all its files; give it to those who get the pack
    row_ids: tuple[str, ...]
    without_script: dict[str, str]  # reasons why a script cannot render a row, by row_id

    def overview(self) -> Mapping[str, object]:
        reasons = "; ".join(dict.fromkeys(self.without_script.values()))
        return {
            "folder": self.folder,
            "digest": self.digest,
            "rows": f"{len(self.row_ids):,}",
            "without script": f"{len(self.without_script):,}: {reasons}" if reasons else None,
        }


def pack(
    output: str | Path,
    folder: str | Path | None = None,
    *,
    rows: AtLeastOne | None = None,
    seed: int = 0,
    row_ids: Collection[str] = (),
    where: str | None = None,
    picks: str | Path | Collection[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Packed:
    """Pack some rows of an output, so that somebody else can render them again and compare.

    folder: new or empty; None is NAME-pack in the current folder, for an output NAME. rows: number of rows,
    spread over kinds of rows and machines, chosen by seed; None: 8, or all that where and picks choose, which
    work as in `export`. row_ids: pack only these, also by their first digits or their clips' names. Raises
    JobError for rows without a record, a folder with files, and a damaged clip, and InputError for a changed
    input file.
    """
    consent = replace(NOTHING, storage_options=storage_options or {})
    chosen = picked(picks, consent.storage_options)
    return pack_rows(
        str(output), folder, rows=rows, seed=seed, row_ids=row_ids, where=where, picks=chosen, given=consent
    )


def pack_rows(
    output: str,
    folder: str | Path | None,
    *,
    rows: int | None,
    seed: int,
    row_ids: Collection[str],
    where: str | None,
    picks: Mapping[str, Pick] | None,
    given: Given,
) -> Packed:
    """Pack rows, as `pack` does. given: what the output is not trusted with."""
    others = {"--rows": rows, "--seed": seed or None, "--where": where, "--picks": picks}
    if row_ids and (chosen_by := [option for option, value in others.items() if value is not None]):
        problem = f"--row names the rows, but {chosen_by[0]} chooses some"
        raise JobError(problem, "leave one of them out")
    opened = Output.open(output, given.storage_options)
    store = opened.store
    folder = Path(folder or f"{PurePosixPath(store.url_of('')).name}-pack")
    claim = claim_of(store)
    if row_ids:
        chosen = [*dict.fromkeys(opened.record(row_id).row_id for row_id in row_ids)]
    else:
        among = None
        if store.list(RECORDS) and (where is not None or picks is not None):
            tables = chosen_records(opened, ["row_id"], where, picks)
            among = {row_id for table in tables for row_id in table["row_id"].to_pylist()}
            if not among:
                raise JobError("no rows are chosen", "loosen --where, or pick other clips of this output")
        count = rows or (NUM_SAMPLED if among is None else len(among))
        chosen = [row.row_id for row in sample_rows(opened, count, seed=seed, among=among)]
    if not chosen:
        raise opened.no_records()
    with new_folder(folder):
        without_script = _write(folder, opened, claim, chosen, given)
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != UNFINISHED)
        digest = write_list(Store(str(folder)), [path.relative_to(folder).as_posix() for path in paths])
    return Packed(folder=str(folder), digest=digest, row_ids=tuple(chosen), without_script=without_script)


def _write(
    folder: Path, opened: Output, claim: Claim, row_ids: Sequence[str], given: Given
) -> dict[str, str]:
    """Write the pack for these rows; return why some have no script."""
    holding, pack_store, wanted = opened.holding(row_ids), Store(str(folder)), pa.array(row_ids, pa.string())
    schema = holding.schema()
    law, copies = RecordLaw.of(opened.store, schema), dict[str, str]()
    # Columns that stay as they are in Arrow: Python's times have no nanoseconds.
    ours = {*RECORD_FIELDS.names, *law.own_columns}
    others = [name for name in schema.names if name not in ours]
    by_id, others_by_id = dict[str, dict[str, Any]](), dict[str, pa.RecordBatch]()
    for table in holding.records():
        table = table.filter(pc.is_in(table["row_id"], wanted)).combine_chunks()
        for batch in table.to_batches(max_chunksize=1):
            (row,) = rows_of(pa.Table.from_batches([batch]).drop_columns(others), holding.url)
            by_id[row["row_id"]], others_by_id[row["row_id"]] = row, batch.select(others)
    records = [by_id[row_id] for row_id in row_ids]
    for record in records:
        for path, content in opened.files(record):
            if not isinstance(content, bytes):
                problem = f"{opened.store.url_of(path)} differs from its record: {HOW[content]}"
                raise JobError(problem, _FIX)
            if path == record["path"] and (wrong := law.contradiction(record, content)):
                raise JobError(f"the record of row {record['row_id']} is damaged: {wrong}", _FIX)
            pack_store.write(path, content)
        copies |= copy_inputs(opened.store, record, given, pack_store)
    names = copies | take_out_folders(claim_job := parse_json(opened.store.read(CLAIM)))
    names |= {record["model"]: without_folder(record["model"]) for record in records}
    for place in filter(None, [given.model, *given.models.values()]):
        full = absolute_path(without_scheme(place), may_be_of_hub=True)
        names[full] = without_folder(full)
    records = [portable_record(record, law) for record in records]
    job = json.dumps(claim_job, indent=2, ensure_ascii=False) + "\n"
    pack_store.write(CLAIM, job.encode())
    writer = Output(pack_store).writer(RECORDS, schema, job=job)
    for record in records:
        writer.add(others_by_id[record["row_id"]], record)
    writer.flush()
    without_script = {}
    for record in records:
        try:
            script = replay_script(holding, record["row_id"], given)
        except FramefleetError as error:
            without_script[record["row_id"]] = error.problem
        else:
            for place, name in names.items():
                script = script.replace(repr(place), repr(name))
            pack_store.write(_script_of(record), script.encode())
    _describe(pack_store, claim, records, without_script)
    return without_script


def _script_of(record: Mapping[str, Any]) -> str:
    return f"scripts/{record['row_id']}.py"


def _describe(
    to: Store, claim: Claim, records: list[dict[str, Any]], without_script: Collection[str]
) -> None:
    """Write versions, digests and the README."""
    models = {name: one.files for name, one in claim.job.models.items()} or {"": claim.model_files}
    options, checks = [], []
    for name, files in models.items():
        options.append(quoted("--model", f"{name}=MODEL_{name}") if name else "--model MODEL")
        path = f"model-{name}.sha256" if name else "model.sha256"
        checks.append(quoted(f"/path/of/this/{path}"))
        to.write(path, "".join(f"{digest}  {file}\n" for file, digest in files.items()).encode())
    of_rows: list[ClaimedModel] = [*claim.job.models.values()] or [claim.job.model or ClaimedModel()]
    parts = dict.fromkeys(part for model in of_rows for part in model.parts)
    options += [quoted("--part", f"{part}=PART_{part}") for part in parts]
    options += [quoted("--lora", f"{name}=LORA_{name}") for name in claim.job.loras]
    options += ["--ip-adapter IP_ADAPTER"] if any(model.ip_adapter for model in of_rows) else []
    options += [quoted("--second-model", f"{name}=MODEL_{name}") for name in claim.job.second_models]
    opened: list[Any] = [*of_rows, *claim.job.loras.values(), *claim.job.second_models.values()]
    options += ["--allow-pickle"] if any(one.allow_pickle for one in opened) else []
    recipes = sorted({record["recipe"] for record in records if ":" in record["recipe"]})
    options += [quoted("--recipe", recipe) for recipe in recipes]
    by_versions: dict[tuple[str, str], list[dict[str, Any]]] = {}  # by Python version and requirements
    for record in records:
        by_versions.setdefault(_versions_of(record), []).append(record)
    lines: dict[str, str] = {}
    commands = []
    for number, ((python, pinned), some) in enumerate(by_versions.items(), start=1):
        ending = f"-{number}" if number > 1 else ""
        requirements = f"requirements{ending}.txt"
        to.write(requirements, pinned.encode())
        rows = [f"--row {record['row_id']}" for record in some]
        only = rows if len(by_versions) > 1 else [f"--sample {len(records)}"]
        commands.append(
            _COMMANDS.format(
                python=".".join(python.split(".")[:2]) or "3",
                venv=f".venv{ending}",
                requirements=requirements,
                options=" ".join([*only, *options]),
            )
        )
        lines |= {record["row_id"]: _line(record, without_script, python, requirements) for record in some}
    page = _README.format(
        commands="\n".join(commands),
        checks=" ".join(checks),
        rows="\n".join(lines[record["row_id"]] for record in records),
    )
    to.write("README.md", page.encode())


def _versions_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return the Python version that rendered a row, and the requirements for pip."""
    # Records are not trusted: an invalid version could be an option of pip, or a command for the shell.
    values = parse_json(record["environment"]).items()
    versions = {name: text for name, text in values if isinstance(text, str) and _VERSION.fullmatch(text)}
    pinned = [f"{name}=={versions[name].partition('+')[0]}\n" for name in _LIBRARIES if name in versions]
    return versions.get("python", ""), "".join(sorted(pinned))


def _line(record: Mapping[str, Any], without_script: Collection[str], python: str, requirements: str) -> str:
    row_id, path, model = record["row_id"], record["path"], json.dumps(record["model"], ensure_ascii=False)
    script = "" if row_id in without_script else f"[script]({_script_of(record)})"
    device = device_name(parse_json(record["environment"]))
    return (
        f"| {row_id} | {_cell(model.strip(chr(34)))} | {record['seed']} | [clip]({path}) | {script} "
        f"| [{requirements}]({requirements}) | {_cell(f'Python {python}, {device}')} |"
    )


def _cell(text: str) -> str:
    """Return untrusted text escaped for a Markdown cell, without HTML and links."""
    return re.sub(r"([\\`*_\[\]|!~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
