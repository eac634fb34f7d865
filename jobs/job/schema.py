"""The job file: YAML, or options of the command line, in; one checked `Job` out.

Relative paths in it are relative to the folder in which the command runs. A key without a value (`null`)
means its default, but below `defaults:`, where it is a value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.specs.dtypes import DType
from framefleet.pipeline.render.fused.sizes import MIN_GAIN
from framefleet.pipeline.request import MAX_FPS, MIN_FPS
from framefleet.pipeline.training.settings import TrainSettings

_Scalar = str | int | float | bool


class Section(BaseModel):
    """A part of the job file: unknown keys are refused, and "8" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SecondModelSection(Section):
    """A model beside the job's own, that rows may name."""

    path: str = Field(
        min_length=1,
        description="A diffusers pipeline: a folder (with model_index.json), org/name of the hub, or a URL.",
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Of a hub model: a branch, tag or commit; unset: main."
    )
    lock: str | None = Field(
        default=None, min_length=1, description="A lock file that its files must agree with; unset: its own."
    )
    allow_pickle: bool = Field(
        default=False, description="Load pickles of tensors where there are no safetensors."
    )
    dtype: DType = Field(
        default="auto",
        description="Of all components, or a mapping as {default: bf16, vae: fp32}. "
        "auto: fp32 on a CPU; on a GPU what the model's preset says, or else bf16.",
    )


class ModelSection(SecondModelSection, Options):
    """Which model renders, and how it computes."""

    device: str = Field(default="auto", description="auto: the GPU where there is one.")
    threads: int = Field(
        default=1, ge=1, description="Of torch on the CPU; another number may change the bits."
    )

    @property
    def options(self) -> Options:
        return Options(**{name: getattr(self, name) for name in Options.model_fields})


class BatchingSection(Section):
    """How rows share forwards."""

    mode: Literal["exact", "fast"] = Field(
        default="exact", description="exact: every clip is what a plain diffusers call gives, bit for bit."
    )
    max_rows: int = Field(default=8, ge=1, description="Rows in one forward, at most.")
    min_gain: float = Field(
        default=MIN_GAIN,
        ge=0,
        description="Rows per second that a larger batch must win; 0 takes every batch.",
    )


class MediaSection(Section):
    """How clips are stored."""

    format: Literal["mp4", "mkv", "png"] | None = Field(
        default=None,
        description="mp4 (H.264), mkv (lossless FFV1) or png; unset: mp4 for videos, png for images.",
    )
    crf: int = Field(default=18, ge=0, le=51, description="Quality of mp4, 0 (lossless) to 51.")
    fps: float | None = Field(
        default=None,
        ge=MIN_FPS,
        le=MAX_FPS,
        description="Frames per second; unset: the row's, or the model's own.",
    )


class FleetSection(Section):
    """Which machines render."""

    address: str | None = Field(
        default=None, description="A Ray cluster to join (auto or host:port); unset: this machine."
    )
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: one for each GPU, or for each CPU core where there is no GPU."
    )
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="auto: 1 where the cluster has GPUs."
    )
    cpus_per_worker: float = Field(
        default=1, ge=0, description="CPU cores that Ray sets aside for each worker."
    )
    ready_timeout_s: float = Field(default=600, gt=0, description="How long to wait for the first worker.")


class RetriesSection(Section):
    """When a row is given up."""

    attempts: int = Field(default=3, ge=1, description="Errors after which a row goes to failures/.")


class InputsSection(Section):
    """Images and videos that rows name."""

    roots: list[str] = Field(
        default_factory=list,
        description="Folders and URLs below which rows may name files, beside the table's own folder; "
        "public http(s) URLs need no root.",
    )


class LoraSection(Section):
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


def _mapping(model: object) -> object:
    return {"path": model} if isinstance(model, str) else model


class TableJob(Section):
    """One table, one model, one output, and where the work is done."""

    table: str = Field(min_length=1, description="Parquet, CSV or JSONL: a file, folder, glob or fsspec URL.")
    output: str = Field(min_length=1, description="A folder or an fsspec URL, such as s3://bucket/run-7.")
    model: Annotated[ModelSection, BeforeValidator(_mapping, json_schema_input_type=str | ModelSection)] = (
        Field(description="A folder, a hub model as org/name or org/name@revision, a URL; or a mapping.")
    )
    defaults: dict[str, _Scalar | None] = Field(
        default_factory=dict,
        description="Arguments of rows that do not give them; null takes the model's own default away.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Where arguments stand in the table, as `prompt: caption`."
    )
    inputs: InputsSection = InputsSection()
    fleet: FleetSection = FleetSection()
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
    batching: BatchingSection = BatchingSection()
    keep_embeddings: bool = Field(
        default=False,
        description="Keep what text encoders return in the output, and the encoders off the GPU.",
    )
    media: MediaSection = MediaSection()
    retries: RetriesSection = RetriesSection()


class TrainJob(TableJob):
    """What is trained, on which videos, and how.

    table: rows of `video` and `prompt`, or the records of a render job.
    """

    train: TrainSettings


def job_schema(kind: type[TableJob] = Job) -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors."""
    title = "framefleet job" if kind is Job else "framefleet training"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **kind.model_json_schema(),
        "title": title,
    }
