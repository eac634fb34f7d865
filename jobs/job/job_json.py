"""What job.json says, checked: an output may come from anybody, and its files may be damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter

from framefleet.jobs.job import schema
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.ip_adapter import IpAdapter
from framefleet.pipeline.model.sources.parts import ModelPart
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.outputs.output import Output, find_claim_as
from framefleet.pipeline.outputs.stores.store import Store, read_json

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Written(BaseModel):
    """Keys that we read have a type; others stay as they are, to be compared or written again."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class ClaimedLora(schema.LoraSection):
    model_config = ConfigDict(extra="allow")
    sha256: Sha256


class ClaimedSecondModel(schema.SecondModelSection):
    model_config = ConfigDict(extra="allow")
    digest: Sha256


class ClaimedModel(Written):
    allow_pickle: bool = False
    parts: dict[str, ModelPart] = {}
    ip_adapter: IpAdapter | None = None


class ClaimedOfSeveral(ClaimedModel):
    """One of several models, with its digest and files; `Claim` has those of a job's only model."""

    digest: Sha256
    numerics: dict[str, Any]
    files: dict[str, str]


class ClaimedJob(Written):
    table: str | None = None
    output: str = ""
    model: ClaimedModel | None = ClaimedModel()
    models: dict[str, ClaimedOfSeveral] = {}
    recipe: str = "generate"
    media: schema.MediaSection = schema.MediaSection()
    loras: dict[str, ClaimedLora] = {}
    second_models: dict[str, ClaimedSecondModel] = {}


class Claim(Written):
    """What job.json says."""

    framefleet: str = ""
    job: ClaimedJob
    file_steps: list[str] = []  # the sections whose steps changed files
    recipe_digest: str | None = None
    model_files: dict[str, str] = {}


JOB_JSON = TypeAdapter(Claim)


def read_claim(store: Store) -> Claim:
    """Return what job.json says. Raises FileNotFoundError if there is none, JobError if it is damaged."""
    return read_json(store, CLAIM, JOB_JSON)


def claim_of(store: Store) -> Claim:
    """Return what job.json says. Raises JobError if it is damaged, or if there is none."""
    try:
        return read_claim(store)
    except FileNotFoundError:
        fix = "check the path; if only job.json is lost, `framefleet repair` puts it back"
        if inner := Output(store).inner:
            fix = f"give the job file instead: the output has only {' and '.join(inner)} so far"
        raise JobError(f"{store.url_of('')} is not an output: it has no job.json", fix) from None


def fit_of(job: Mapping[str, Any]) -> Any:
    """Return the `inputs.fit` of a job in job.json; earlier versions always stretched."""
    inputs = job.get("inputs")
    return inputs.get("fit", "stretch") if isinstance(inputs, Mapping) else "stretch"


def with_begun_fit(job: schema.Job, store: Store) -> schema.Job:
    """Return the job with `fit: stretch` if its output was begun with that, unless the job sets `fit`."""
    claim = find_claim_as(store, JOB_JSON) if job.inputs.fit is None else None
    if claim is None or fit_of(claim.job.model_dump()) != "stretch":
        return job
    return job.model_copy(update={"inputs": job.inputs.model_copy(update={"fit": "stretch"})})


def gpus_per_worker(store: Store) -> float:
    """Return how many GPUs each worker had according to job.json; 0 if it has no plausible number."""
    try:
        claim = find_claim_as(store, JOB_JSON)
    except JobError:
        return 0.0
    fleet = (claim.job.model_extra or {}).get("fleet") if claim else None
    gpus = fleet.get("gpus_per_worker") if isinstance(fleet, Mapping) else None
    return float(gpus) if isinstance(gpus, int | float) and 0 <= gpus <= 1024 else 0.0
