"""Read and check what a record and job.json say about a row.

The output may be somebody else's. Places that it names are only opened where that can do no harm; the caller
has to allow the rest (docs/damage.md).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from framefleet.api.clips import FileStep, Inputs, Request, inputs_in, is_model
from framefleet.api.errors import JobError, not_ours, quoted
from framefleet.api.jobs import Claim, claim_of
from framefleet.api.models import DType, DTypeName, ModelSettings, Recipe, find_recipe
from framefleet.api.outputs import CLAIM, Output, Record, Store, dated, read_as
from framefleet.api.sections import Strict
from framefleet.api.texts import parse_json
from framefleet.jobs.doors import file_steps
from framefleet.jobs.job.job_json import ClaimedModel, ClaimedOfSeveral, Sha256
from framefleet.jobs.job.steps import sections_with_steps
from framefleet.pipeline.model.ip_adapter import IpAdapter, ip_adapter_of
from framefleet.pipeline.model.lora import ARGUMENT, MAX_WEIGHT, Lora
from framefleet.pipeline.model.options.schema import (
    DOWNLOADED,
    Matmul,
    Options,
    OtherQuantization,
    read_options,
)
from framefleet.pipeline.model.sources.packing import check_packing
from framefleet.pipeline.model.sources.parts import ModelPart, names_of
from framefleet.pipeline.model.specs.check import MAX_IMAGES, MAX_LIST
from framefleet.pipeline.model.specs.signature import Fit, MediaKind
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.plugins.keep.record_law import unsound_files
from framefleet.plugins.keep.replay.given import NOTHING, Given

_MAX_THREADS = 1024  # torch starts as many as it is asked for
# Object stores, which only answer for the caller's credentials. Other URLs may lead anywhere, e.g. to a web
# server on this machine's network.
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "file", "hf")

_List = Annotated[list[str | int | float], Field(max_length=MAX_LIST)]
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class _Input(Strict):
    uri: str
    sha256: Sha256
    num_frames: Annotated[int, Field(ge=1)] | None = None
    first_frame: Annotated[int, Field(ge=0)] | None = None  # of a part of a video
    kind: MediaKind | None = None  # of a reference
    fit: Fit | None = None


_Inputs = Annotated[list[_Input], Field(max_length=MAX_IMAGES)]


class _SecondModel(Strict):
    name: Name
    digest: Sha256
    dtype: DType = "auto"


class _Lora(Strict):
    sha256: Sha256
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
    component: Literal["transformer_2"] | None = None


class Environment(BaseModel):
    """The parts of an environment needed to render a row again. Other parts are compared and shown."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    dtype: DTypeName | dict[str, DTypeName]
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|mps|(cuda|xpu)(:[0-9]{1,3})?)$")]
    threads: Annotated[int, Field(ge=1, le=_MAX_THREADS)]
    attention: str | None = None
    matmul: Matmul | None = None
    onednn_max_cpu_isa: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,40}$")] | None = None


_ENVIRONMENT = TypeAdapter(Environment)
_NUMERICS = TypeAdapter(dict[str, Any])
_ARGUMENTS: TypeAdapter[Any] = TypeAdapter(
    dict[str, str | int | float | bool | _List | _Input | _Inputs | _SecondModel | dict[Name, _Lora]],
    config=ConfigDict(strict=True, allow_inf_nan=False),
)


def arguments_of(record: Record) -> dict[str, Any]:
    """Return the arguments of the row. Like those below, raises JobError for what framefleet never writes."""
    where = _where(record, "arguments")
    for name, value in read_as(_ARGUMENTS, record.arguments, where).items():
        if isinstance(value, dict) != (name == ARGUMENT):
            raise not_ours(where, f"{name} has a value of the wrong type")
    return parse_json(record.arguments)


def environment_of(record: Record) -> Environment:
    """Return the environment in which the row was rendered."""
    from framefleet.pipeline.model.options.attention import backends

    if "engine" in read_as(_NUMERICS, record.numerics, _where(record, "numerics")):
        problem = f"row {record.row_id} was made by the engine {record.model}, which cannot be replayed"
        raise JobError(problem, "compare its clip with those of a model, with `framefleet audit`")
    where = _where(record, "environment")
    environment = read_as(_ENVIRONMENT, record.environment, where)
    if environment.attention not in (None, *backends()):
        raise not_ours(where, f"attention {environment.attention!r} is not a backend of diffusers")
    return environment


def _where(record: Record, column: str) -> str:
    return f"column {column!r} of the record of row {record.row_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One committed row, from its record and job.json."""

    record: Record
    claim: Claim
    environment: Mapping[str, Any]
    request: Request
    model: ModelSettings
    model_files: Mapping[str, str]  # SHA-256 of the files from which its model was loaded
    second_models: Mapping[str, ModelSettings]  # by name
    inputs: Inputs
    output: Output


def find_recorded(output: str | Output, row_id: str, given: Given = NOTHING) -> Recorded:
    """Return a committed row. output: one that is open, e.g. with few parts. JobError without a record."""
    opened = output if isinstance(output, Output) else Output(Store(dated(output), given.storage_options))
    claim, record = claim_of(opened.store), opened.record(row_id)
    return recorded_of(opened.holding([record.row_id]), claim, record, given)


def recorded_of(opened: Output, claim: Claim, record: Record, given: Given = NOTHING) -> Recorded:
    """Return the row of a record. Raises JobError if job.json contradicts itself."""
    if wrong := unsound_files(claim):
        where = opened.store.url_of(CLAIM)
        raise JobError(f"{where}: {wrong}", "run `framefleet repair`, or restore it")
    environment, arguments = environment_of(record), arguments_of(record)
    environment_values = environment.model_dump(exclude_none=True)
    numerics = read_as(_NUMERICS, record.numerics, _where(record, "numerics"))
    models = filter(is_model, arguments.values())
    name = record.model_name
    claimed = claim.job.model if name is None else claim.job.models.get(name)
    if claimed is None:
        raise _unnamed("the model" if name is None else f"the model {name!r}")
    what, option = "its model", "--model PLACE"
    if name is not None:
        what, option = f"its model {name!r}", _option("model", name)
    moved = given.models.get(name) if name and given.models else given.model
    parts = {part: ModelPart(path=one.path, revision=one.revision) for part, one in claimed.parts.items()}
    return Recorded(
        record=record,
        claim=claim,
        environment=environment_values,
        request=Request(
            arguments=arguments,
            seed=record.seed,
            scheduler=record.scheduler,
            recipe=record.recipe,
            fps=record.fps if record.fps_source in (None, "row") else None,
        ),
        model=ModelSettings(
            path=moved or _place(record.model.removesuffix(names_of(parts)), what, option),
            parts={
                part: ModelPart(path=given.parts[part])
                if part in given.parts
                else of.model_copy(
                    update={"path": _place(of.path, f"the {part} of {what}", _option("part", part))}
                )
                for part, of in parts.items()
            },
            allow_pickle=_check_pickles(claimed.allow_pickle, what, given),
            dtype=environment.dtype,
            device=environment.device,
            threads=environment.threads,
            options=_options(record, numerics, environment_values, given),
            storage_options=dict(given.storage_options),
            loras={
                name: _lora(name, lora["sha256"], claim, given)
                for name, lora in arguments.get(ARGUMENT, {}).items()
            },
            ip_adapter=_ip_adapter(claimed, given),
        ),
        model_files=claimed.files if isinstance(claimed, ClaimedOfSeveral) else claim.model_files,
        second_models={one["name"]: _second_model(one, claim, given) for one in models},
        inputs=inputs_of_row(opened.store, arguments, given),
        output=opened,
    )


def _options(
    record: Record, numerics: Mapping[str, Any], environment: Mapping[str, Any], given: Given
) -> Options:
    """Return the options of a row. Raises JobError for those that would run code or open files."""
    attention = environment.get("attention", "")
    if attention.endswith(DOWNLOADED) and given.attention != attention:
        problem = f"its attention is {attention!r}, a kernel that would be fetched from the hub as code"
        raise JobError(problem, f"if you trust it, add {quoted('--attention', attention)}")
    options = recorded_options(numerics, environment)
    if isinstance(quantization := options.quantization, OtherQuantization):
        values = {**quantization.arguments, "quant_method": quantization.backend}
        check_packing(_where(record, "numerics"), values)
    return options


def steps_again(job: Mapping[str, Any], *, allow_pickle: bool) -> dict[str, FileStep]:
    """Return the steps that make the file of a row again. job: as in job.json.

    Raises JobError for invalid steps, and for those that the caller has to allow.
    """
    steps = {
        name: step
        for name in sections_with_steps(job)
        if (kind := file_steps()[name]()).changes_file
        and (step := kind.again(job[name], allow_pickle=allow_pickle)) is not None
    }
    return dict(sorted(steps.items(), key=lambda named: named[1].order))


def recorded_options(numerics: Mapping[str, Any], environment: Mapping[str, Any]) -> Options:
    """Return the options of a record, with the attention and matmul that were used."""
    values = {name: numerics[name] for name in Options.model_fields if name in numerics}
    values.pop("attention", None)  # may be "auto" for a model without a choice; the environment counts
    if "attention" in environment:
        values["attention"] = environment["attention"]
    if "matmul" in environment:
        values["matmul"] = environment["matmul"]
    if isinstance(values.get("offload"), dict) and values["offload"].get("disk"):
        values["offload"] = values["offload"] | {"disk": tempfile.gettempdir()}
    return read_options(values)


def _option(option: str, name: str) -> str:
    return quoted(f"--{option}", f"{name}=PLACE")


def is_opened(place: str) -> bool:
    """Whether a place is a folder, a hub model or in an object store."""
    scheme = re.match("([a-z0-9]+)://", place)
    is_plain = scheme[1] in STORES if scheme else "://" not in place
    return is_plain and "::" not in place and not place.startswith("~")


def _place(place: str, what: str, option: str) -> str:
    """Return a place that an output names. Raises JobError if opening it needs the caller's consent."""
    if is_opened(place):
        return place
    problem = f"the output says that {what} is at {place!r}, which is not opened without your consent"
    raise JobError(problem, f"if you trust it, add {option}")


def _check_pickles(claimed: bool, what: str, given: Given) -> bool:
    if claimed and not given.allow_pickle:
        problem = f"{what} may contain pickles, which can run code when they are opened"
        raise JobError(problem, "if you trust its source, add --allow-pickle")
    return given.allow_pickle


def _named(
    kind: str, name: str, claimed: Mapping[str, Any], moved: Mapping[str, str], given: Given
) -> dict[str, Any]:
    """Return the settings of a LoRA or second model, from job.json or the caller."""
    if name not in claimed:
        raise _unnamed(f"the {kind} {name!r}")
    one, what, place = claimed[name], f"its {kind} {name!r}", moved.get(name)
    return {
        "path": place or _place(one.path, what, _option(kind.lower().replace(" ", "-"), name)),
        "revision": None if place else one.revision,
        "allow_pickle": _check_pickles(one.allow_pickle, what, given),
    }


def _lora(name: str, sha256: str, claim: Claim, given: Given) -> Lora:
    """Return a LoRA of the row, with the SHA-256 in the record."""
    where, claimed = _named("LoRA", name, claim.job.loras, given.loras, given), claim.job.loras[name]
    file = None if name in given.loras else claimed.file
    return Lora(**where, file=file, component=claimed.component, sha256=sha256)


def _ip_adapter(model: ClaimedModel, given: Given) -> IpAdapter | None:
    """Return the model's IP-adapter, at the place from job.json or the caller. Its files are the model's."""
    claimed, moved = model.ip_adapter, given.ip_adapter
    if claimed is None:
        return None
    place = moved or _place(claimed.path, "its IP-adapter", "--ip-adapter PLACE")
    revision = None if moved else claimed.revision
    return ip_adapter_of(claimed.model_copy(update={"path": place, "revision": revision}))


def _second_model(named: Mapping[str, Any], claim: Claim, given: Given) -> ModelSettings:
    where = _named("second model", named["name"], claim.job.second_models, given.second_models, given)
    options = dict(given.storage_options)
    return ModelSettings(**where, dtype=named.get("dtype", "auto"), storage_options=options)


def _unnamed(what: str) -> JobError:
    return JobError(f"job.json does not name {what} of this row", "restore job.json of this output")


def inputs_of_row(store: Store, arguments: Mapping[str, Any], given: Given) -> Inputs:
    """Return an `Inputs` that may read the row's own images and videos.

    Folders and object stores that the record names are read, as is the output: content must have the
    recorded SHA-256. On the web, only public addresses and the caller's roots are read.
    """
    uris = [place["uri"] for value in arguments.values() for place in inputs_in(value)]
    own = []
    for uri in uris:
        scheme, mark, rest = uri.partition("://")
        is_object = scheme in STORES and "/" in rest.strip("/") and "::" not in uri
        if is_object if mark else uri.startswith("/"):
            own.append(uri.rpartition("/")[0] or "/")
    return Inputs([*given.roots, *own], given.storage_options, base=store.url_of(""))


def recipe_of(recorded: Recorded, given: Given) -> Recipe:
    """Return the recipe of a row. Raises JobError for a user's recipe that the caller does not name."""
    name = recorded.request.recipe
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name in given.recipes:
        return find_recipe(name)
    if given.recipes:
        others = " or ".join(map(repr, given.recipes))
        problem = f"its record names the recipe {name!r}, not {others}"
        raise JobError(problem, "give that one, if it is yours")
    fix = f"if it is yours, run from the folder that holds it, with {quoted('--recipe', name)}"
    raise JobError(
        f"its recipe is {name!r}, and code is not run just because a record names it",
        fix if ":" in name else "install the plugin that has this recipe",
    )
