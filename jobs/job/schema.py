"""The job file: YAML, or options of the command line, in; one checked `Job` out.

`table`, `output` and `model` of a file are relative to its folder (see `file.py`), other paths to the folder
in which the command runs. A key without a value (`null`) means its default, but below `defaults:`, where it
is a value.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.driver.budget import JobBudget
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.pipeline.guards.strict import Strict
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.specs.dtypes import DType
from framefleet.pipeline.outputs.media.media_settings import Media, MediaFormat, VideoEncoder
from framefleet.pipeline.render.audit.settings import Audit
from framefleet.pipeline.render.fused.batching import Batching, Mode
from framefleet.pipeline.request import MAX_FPS, MIN_FPS
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.training.settings import TrainSettings

# Their defaults are the job's.
_MODEL, _BATCHING, _AUDIT, _MEDIA = ModelSettings(path=""), Batching(), Audit(), Media()
_Scalar = str | int | float | bool
_TABLE = "Parquet, CSV or JSONL: a file, folder, glob or fsspec URL."


class SecondModelSection(Strict):
    """A model beside the job's own, that rows may name."""

    path: str = Field(
        min_length=1,
        description="A diffusers pipeline: a folder (with its index), org/name of the hub, or a URL.",
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Of a hub model: a branch, tag or commit; unset: main."
    )
    lock: str | None = Field(
        default=None, min_length=1, description="A lock file that its files must agree with; unset: its own."
    )
    allow_pickle: bool = Field(
        default=_MODEL.allow_pickle, description="Allow pickles of tensors where there are no safetensors."
    )
    dtype: DType = Field(
        default=_MODEL.dtype,
        description="Of all components, or a mapping as {default: bf16, vae: fp32}. "
        "auto: fp32 on a CPU; on a GPU what the model's preset says, or else bf16.",
    )


class IpAdapterSection(Strict):
    """An IP-adapter, for which every row gives an image."""

    path: str = Field(min_length=1, description="A folder, org/name of the hub, or a URL of a folder.")
    weights: str = Field(min_length=1, description="The adapter's .safetensors file in there.")
    image_encoder: str = Field(min_length=1, description="The folder of its CLIP model in there.")
    revision: str | None = Field(default=None, min_length=1, description="Of the hub; unset: main.")
    scale: float = Field(default=1.0, ge=0, le=10, description="How much the image counts; 0: not at all.")


class ModelSection(SecondModelSection, Options):
    """Which model renders, and how it computes."""

    device: str = Field(default=_MODEL.device, description="auto: the GPU where there is one.")
    threads: int = Field(
        default=_MODEL.threads, ge=1, description="Of torch on the CPU; another number may change the bits."
    )
    ip_adapter: IpAdapterSection | None = Field(
        default=None, description="An IP-adapter; rows then give its image as `ip_adapter_image`."
    )

    @property
    def options(self) -> Options:
        return Options(**{name: getattr(self, name) for name in Options.model_fields})


class BatchingSection(Strict):
    """How rows share forwards."""

    mode: Mode = Field(
        default=_BATCHING.mode,
        description="exact: every clip is what a plain diffusers call gives, bit for bit. fast: rows round "
        "differently in company, and share text encoders and decoders too.",
    )
    max_rows: int = Field(default=_BATCHING.max_rows, ge=1, description="Rows in one forward, at most.")
    min_gain: float = Field(
        default=_BATCHING.min_gain,
        ge=0,
        description="Rows per second that a larger batch must win; 0 takes every batch.",
    )
    remember: bool = Field(
        default=_BATCHING.remember,
        description="Keep what was found of batches, on workers' machines and in the output.",
    )


class AuditSection(Strict):
    """Rows rendered again by plain calls, to see that they are equal."""

    every: int = Field(
        default=_AUDIT.every,
        ge=0,
        description="Each batched row is compared with a probability of 1/every at least, the first of each "
        "recipe and shape more often; 0: none.",
    )
    at_most: float | None = Field(
        default=_AUDIT.at_most,
        gt=0,
        le=1,
        description="Compare enough rows to say, if all are equal, that at most this share of the job's rows "
        "is wrong, with 95 % confidence.",
    )

    @model_validator(mode="after")
    def _has_audits(self) -> Self:
        Audit(every=self.every, at_most=self.at_most)  # raises what it does not take
        return self


class SigningSection(Strict):
    """C2PA manifests, signed in your name, that say of each clip that a model made it."""

    certificate: str = Field(
        min_length=1, description="A file here: your certificate in PEM, and those that issued it."
    )
    private_key: str = Field(
        min_length=1, description="A file on every worker's machine: its key in PEM, which travels nowhere."
    )


class MediaSection(Strict):
    """How clips are stored."""

    format: MediaFormat | None = Field(
        default=None,
        description="mp4 (H.264, AAC), webm (VP9, Opus), mkv (lossless FFV1, FLAC), webp or gif (animated), "
        "png, png.zip (frames, layers), exr.zip (HDR), flac or wav (sound alone); unset: mp4, png for "
        "images, png.zip for layers, flac for sound.",
    )
    audio: bool = Field(default=_MEDIA.audio, description="Whether clips have their sound.")
    crf: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Quality on the encoder's scale, 0 the best: libx264 to 51 (unset: 18), libx265 to 51 "
        "(20), libvpx-vp9 and libsvtav1 to 63 (24), webp to 100 (10).",
    )
    encoder: VideoEncoder | None = Field(
        default=None,
        description="Of mp4: libx264, libx265, libsvtav1 (AV1), or h264_nvenc, the GPU's own, whose bytes "
        "are not repeatable; of webm: libvpx-vp9 or libsvtav1; unset: the first.",
    )
    fps: float | None = Field(
        default=None,
        ge=MIN_FPS,
        le=MAX_FPS,
        description="Frames per second; unset: the row's, or the model's own.",
    )
    c2pa: SigningSection | None = Field(
        default=None, description="Sign mp4 and png, whose bytes are then not repeatable."
    )
    previews: bool = Field(
        default=_MEDIA.previews,
        description="Whether a still is stored beside each clip, for galleries.",
    )


class InputsSection(Strict):
    """Images and videos that rows name."""

    roots: list[str] = Field(
        default_factory=list,
        description="Folders and URLs below which rows may name files, beside the table's own folder; "
        "public http(s) URLs need no root.",
    )
    base: str | None = Field(
        default=None,
        min_length=1,
        description="Where relative paths start, and rows may name files too; unset: the table's own folder, "
        "without a table the current one.",
    )


class LoraSection(Strict):
    """A LoRA that rows may name."""

    path: str = Field(
        min_length=1, description="A .safetensors file, a folder, org/name of the hub, or a URL of either."
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Of the hub: a branch, tag or commit; unset: main."
    )
    file: str | None = Field(
        default=None, min_length=1, description="The file to take, where there are several."
    )
    component: Literal["transformer_2"] | None = Field(
        default=None, description="What it changes, if not what diffusers chooses: for Wan 2.2's low noise."
    )
    allow_pickle: bool = Field(default=False, description="Load a pickle of tensors.")


class SimilaritySection(Strict):
    """How near a clip is to its prompt, a score."""

    similarity: str = Field(
        min_length=1, description="The folder of a CLIP model, on every worker's machine."
    )


class KeepSection(Strict):
    """Which drafts are rendered in full: those for which `where` is true, and of these the best."""

    best: int | None = Field(default=None, ge=1, description="So many of each group, by `by`; unset: all.")
    per: list[str] = Field(
        default_factory=list,
        description="Columns of records, as [prompt]: each of their values makes a group; unset: one group.",
    )
    by: str | None = Field(
        default=None, min_length=1, description="A score, the highest first; -flicker is the lowest first."
    )
    where: str | None = Field(
        default=None,
        min_length=1,
        description='A condition in SQL on columns of records, as "sharpness > 0.4".',
    )

    @field_validator("per", mode="before")
    @classmethod
    def _listed(cls, per: object) -> object:
        return [per] if isinstance(per, str) else per

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if (self.best is None) != (self.by is None):
            raise PydanticCustomError("keep", "given with both `best` and `by`, or with `where` alone")
        if self.best is None and self.where is None:
            raise PydanticCustomError("keep", "given with `best` and `by`, or with `where`")
        return self


class DraftSection(Strict):
    """Rows rendered cheaply first; the best of these drafts are then rendered in full.

    All keys beside `keep` are arguments of the drafts, as num_inference_steps, height and width.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Scalar | list[_Scalar] | None] = Field(init=False)

    keep: KeepSection

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__)


def _mapping(model: object) -> object:
    return {"path": model} if isinstance(model, str) else model


class TableJob(Strict):
    """One table, one model, one output, and where the work is done."""

    table: str | None = Field(default=None, min_length=1, description=_TABLE)
    output: str = Field(min_length=1, description="A folder or an fsspec URL, such as s3://bucket/run-7.")
    model: Annotated[ModelSection, BeforeValidator(_mapping, json_schema_input_type=str | ModelSection)] = (
        Field(description="A folder, a hub model as org/name or org/name@revision, a URL; or a mapping.")
    )
    defaults: dict[str, _Scalar | list[_Scalar] | None] = Field(
        default_factory=dict,
        description="Arguments of rows that do not give them; null takes the model's own default away.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Where arguments stand in the table, as `prompt: caption`."
    )
    inputs: InputsSection = InputsSection()
    fleet: FleetSettings = FleetSettings()
    on_invalid: Literal["fail", "skip"] = Field(
        default="fail", description="Rows that cannot be used: refuse the table, or leave them out."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,  # may hold credentials
        description="What fsspec takes to open table, model and output: key, secret, endpoint_url, ...",
    )


class Job(TableJob):
    """What is rendered, and how."""

    sweep: Sweep = Field(
        default=Sweep(),
        validate_default=True,
        description="What arguments go through: each combination is a row, without a table or of each of its "
        "rows.",
    )
    loras: dict[
        str, Annotated[LoraSection, BeforeValidator(_mapping, json_schema_input_type=str | LoraSection)]
    ] = Field(
        default_factory=dict,
        description="LoRAs by the names that rows give them in a column `lora`, as style:0.8+detail:0.5.",
    )
    second_models: dict[
        str,
        Annotated[
            SecondModelSection, BeforeValidator(_mapping, json_schema_input_type=str | SecondModelSection)
        ],
    ] = Field(
        default_factory=dict,
        description="Models by the names that rows give them in columns `image_model` and `keyframe_model`.",
    )
    recipe: str = Field(
        default="generate",
        min_length=1,
        description="generate, image_to_video, video_to_video, text_to_image_to_video, refine, extend, "
        "keyframes, text_to_keyframes_to_video, or yours as module:function.",
    )
    overrides: dict[str, _Scalar | list[_Scalar] | None] = Field(
        default_factory=dict,
        description="Arguments of all rows, whatever the table says: its columns of these are not read.",
    )
    scores: list[str | SimilaritySection] = Field(
        default_factory=list,
        description="Measured of every clip beside the denoising, columns of records: sharpness, motion, "
        "flicker, is_black, is_static, num_torn_frames, {similarity: CLIP_FOLDER}, yours as module:function.",
    )
    draft: DraftSection | None = Field(
        default=None, description="Render each row cheaply first, and only the best of them in full."
    )
    batching: BatchingSection = BatchingSection()
    audit: AuditSection = AuditSection()
    keep_embeddings: bool = Field(
        default=False,
        description="Keep what text encoders return in the output, and the encoders off the GPU.",
    )
    media: MediaSection = MediaSection()
    order: str = Field(
        default="table",
        description="Which rows go first, of the few thousand that are read ahead: table, in its order; "
        "longest, those with most frames, pixels and steps; priority:COLUMN, those with the highest number.",
    )
    retries: FaultPolicy = FaultPolicy()
    budget: JobBudget = JobBudget()

    @field_validator("order")
    @classmethod
    def _is_known(cls, order: str) -> str:
        if not re.fullmatch("table|longest|priority:.+", order):
            raise PydanticCustomError("order", "table, longest or priority:COLUMN")
        return order

    @field_validator("sweep")
    @classmethod
    def _has_rows(cls, sweep: Sweep, others: ValidationInfo) -> Sweep:
        if not sweep and others.data.get("table", "") is None:
            raise PydanticCustomError("no_rows", "missing")
        return sweep


class TrainJob(TableJob):
    """What is trained, on which videos, and how.

    table: rows of `video` and `prompt`, or the records of a render job.
    """

    table: str = Field(min_length=1, description=_TABLE)
    train: TrainSettings


def job_schema(kind: type[TableJob] = Job) -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors."""
    title = "framefleet job" if kind is Job else "framefleet training"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **kind.model_json_schema(),
        "title": title,
    }
