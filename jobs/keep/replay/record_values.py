"""What the JSON columns of a record say, checked: a record may be anybody's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from framefleet.jobs.job.job_json import Sha256
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.model.lora import ARGUMENT, MAX_WEIGHT
from framefleet.pipeline.model.options.schema import Matmul, Options, recorded_options
from framefleet.pipeline.model.specs.dtypes import DType, DTypeName
from framefleet.pipeline.model.specs.ranges import MAX_IMAGES, MAX_LIST
from framefleet.pipeline.model.specs.signature import MediaKind
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.outputs.stores.json_file import not_ours, read_as

_MAX_THREADS = 1024  # torch starts as many

_List = Annotated[list[str | int | float], Field(max_length=MAX_LIST)]
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class _Input(Strict):
    uri: str
    sha256: Sha256
    num_frames: Annotated[int, Field(ge=1)] | None = None
    kind: MediaKind | None = None  # of a reference


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
    """What of it decides how a row is rendered again; the rest is compared and shown."""

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
    """Return the arguments of the row. Raises JobError, as all here, for what framefleet does not write."""
    where = _where(record, "arguments")
    for name, value in read_as(_ARGUMENTS, record.arguments, where).items():
        if isinstance(value, dict) != (name == ARGUMENT):
            raise not_ours(where, f"{name} has a value of another kind")
    arguments: dict[str, Any] = parse_json(record.arguments)
    return arguments


def environment_of(record: Record) -> Environment:
    """Return where the row was rendered."""
    from framefleet.pipeline.model.options.attention import backends

    where = _where(record, "environment")
    found = read_as(_ENVIRONMENT, record.environment, where)
    if found.attention not in (None, *backends()):
        raise not_ours(where, f"attention {found.attention!r} is not a backend of diffusers")
    return found


def options_of(record: Record, environment: Environment) -> Options:
    """Return the options of the model. Raises ModelError for those that there are not."""
    numerics = read_as(_NUMERICS, record.numerics, _where(record, "numerics"))
    return recorded_options(numerics, environment.model_dump(exclude_none=True))


def _where(record: Record, column: str) -> str:
    return f"column {column!r} of the record of row {record.row_id}"
