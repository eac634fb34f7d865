"""What job.json and train.json say, checked: an output may be anybody's, and files in it damaged."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter

from framefleet.jobs.job.schema import IpAdapterSection, MediaSection
from framefleet.jobs.render.own_tables import DRAFTS
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.dtypes import DType
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.parts import job_in_parts
from framefleet.pipeline.outputs.parts.records import CLAIM, RECORDS
from framefleet.pipeline.outputs.parts.seals import epochs_of
from framefleet.pipeline.outputs.stores.json_file import read_as, read_json
from framefleet.pipeline.outputs.stores.store import Store

RENDER, TRAINING = CLAIM, "train.json"  # files of the two kinds of outputs

log = logging.getLogger(__name__)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Written(BaseModel):
    """What is read of it has its type; the rest is kept as it is, to be compared or written again."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class ClaimedLora(_Written):
    path: str
    revision: str | None = None
    file: str | None = None
    component: Literal["transformer_2"] | None = None
    allow_pickle: bool = False
    sha256: Sha256


class ClaimedSecondModel(_Written):
    path: str
    revision: str | None = None
    allow_pickle: bool = False
    dtype: DType = "auto"
    digest: Sha256


class ClaimedModel(_Written):
    allow_pickle: bool = False
    ip_adapter: IpAdapterSection | None = None


class ClaimedSigning(_Written):
    certificate_sha256: Sha256


class ClaimedMedia(MediaSection):
    """How clips are stored; of a certificate its digest alone."""

    c2pa: ClaimedSigning | None = None  # type: ignore[assignment]  # a job has the files


class ClaimedJob(_Written):
    table: str | None = None
    output: str = ""
    model: ClaimedModel = ClaimedModel()
    recipe: str = "generate"
    media: ClaimedMedia = ClaimedMedia()
    loras: dict[str, ClaimedLora] = {}
    second_models: dict[str, ClaimedSecondModel] = {}


class Claim(_Written):
    """What job.json says."""

    framefleet: str = ""
    job: ClaimedJob
    withheld: list[str] = []  # keys of the job that are written down without what is secret in their URLs
    recipe_digest: str | None = None
    model_files: dict[str, str] = {}


class ClaimedSettings(_Written):
    schedule: str
    steps: int


class ClaimedTrainJob(_Written):
    train: ClaimedSettings


class TrainingClaim(_Written):
    """What train.json says."""

    job: ClaimedTrainJob


_RENDER, _TRAINING = TypeAdapter(Claim), TypeAdapter(TrainingClaim)


def read_claim(store: Store) -> Claim:
    """Return what job.json says; FileNotFoundError when the output has none, JobError when it is damaged."""
    return read_json(store, RENDER, _RENDER)


def find_claim(store: Store) -> Claim | None:
    """Return what job.json says, or the parts of records where it is lost or damaged; None: nobody's output.

    Raises JobError where it is damaged, or lost although there are records, and no part tells.
    """
    try:
        return read_claim(store)
    except FileNotFoundError:
        if not parts_in(store, RECORDS):
            return None
        lost = JobError(
            f"{store.url_of('')} has records, but no {RENDER}, which says of what job",
            "put it back, or choose another output",
        )
    except JobError as error:
        lost = error
    if (told := claim_in_parts(store)) is None:
        raise lost
    log.warning("%s: %s; the parts of its records tell", store.url_of(RENDER), lost.problem)
    return told


def claim_in_parts(store: Store) -> Claim | None:
    """Return what job.json says by the newest part that holds it; None where none does."""
    text = job_in_parts(store)
    return None if text is None else read_as(_RENDER, text, store.url_of(RECORDS))


def claim_of(store: Store) -> Claim:
    """Return what job.json says, as `read_claim` does; JobError also where the output has none."""
    try:
        return read_claim(store)
    except FileNotFoundError:
        fix = "check the path; if job.json is lost, run `framefleet repair`"
        if draft_folder(store):
            fix = "give the job file in its place: it has drafts alone so far, which do not say what follows"
        raise JobError(f"{store.url_of('')} is not an output: it has no job.json", fix) from None


def draft_folder(store: Store) -> Store | None:
    """Return the output in the folder of drafts, whose ever it is; None where no driver has begun any."""
    drafts = store.below(DRAFTS)
    return drafts if epochs_of(drafts) or parts_in(drafts, RECORDS) else None


def read_training_claim(store: Store) -> TrainingClaim:
    """Return what train.json says, as `read_claim` does."""
    return read_json(store, TRAINING, _TRAINING)
