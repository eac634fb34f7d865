"""The job file: YAML, or options of the command line, in; one checked `Job` out.

Paths that a file names start in its folder (see `paths.py`), those of options in the current one. A key
without a value (`null`) means its default, but below `defaults:`, where it is a value.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.driver.stop import JobBudget
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.jobs.doors import job_kind, job_kinds, runners
from framefleet.jobs.job.paths import without_scheme
from framefleet.jobs.job.section import Arguments, Section
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.strict_model import NonEmpty, by_type
from framefleet.pipeline.model.device_placement import Placement
from framefleet.pipeline.model.ip_adapter import IpAdapter
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.parts import ModelPart
from framefleet.pipeline.model.specs.dtypes import DType
from framefleet.pipeline.model.specs.signature import Fit
from framefleet.pipeline.outputs.layout import dated
from framefleet.pipeline.outputs.media.media_settings import Embed, Media, MediaFormat, VideoEncoder
from framefleet.pipeline.plugin import by_name, refuse_section, sections
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.fused.batching import Batching, Mode
from framefleet.pipeline.request import MAX_FPS, MIN_FPS
from framefleet.pipeline.rows.sweeps.settings import Sweep

if TYPE_CHECKING:
    from framefleet.pipeline.engine import Engine

# Defaults of the job's keys.
_MODEL, _BATCHING, _AUDIT, _MEDIA = ModelSettings(path=""), Batching(), Audit(), Media()
_RENDERING = ("model", "models", "engine")  # a job has exactly one of them
_MAX_MODELS = 64  # each has rows of its own in the driver's memory


def _mapping(model: object) -> object:
    return {"path": model} if isinstance(model, str) else model


class SecondModelSection(Section):
    """A model that rows may name, in addition to the job's own."""

    path: NonEmpty
    """Diffusers pipeline: a folder (with its index), org/name on the hub, or a URL."""
    revision: NonEmpty | None = None
    """Branch, tag or commit of a hub model. Default: main."""
    lock: NonEmpty | None = None
    """Lock file that the model's files must match. Default: the one in its folder."""
    allow_pickle: bool = _MODEL.allow_pickle
    """Allow pickles of tensors where there are no safetensors."""
    dtype: DType = _MODEL.dtype
    """Dtype of all components, or a mapping, e.g. {default: bf16, vae: fp32}. auto: fp32 on a CPU; on a GPU
    that of the model's preset, else bf16."""


class ModelSection(SecondModelSection, Options):
    """Which model renders, and how it computes."""

    base: NonEmpty | None = None
    """Pipeline that `path` was made for, if that is a single file: a folder, org/name on the hub, or a URL.
    It provides configs, tokenizers and the weights that the file lacks."""
    parts: dict[
        str, Annotated[ModelPart, BeforeValidator(_mapping, json_schema_input_type=str | ModelPart)]
    ] = Field(default_factory=dict)
    """Files with the weights of single components, e.g. {transformer: wan-Q4_K_M.gguf}."""
    device: str = _MODEL.device
    """Device to render on. auto: the GPU, if there is one."""
    license: NonEmpty | None = None
    """License of the weights, for records and exports. Default: what the model's card or preset says."""
    threads: int = Field(default=_MODEL.threads, ge=1)
    """Number of torch threads on the CPU. Another number may change frames slightly."""
    placement: (
        Annotated[Placement, BeforeValidator(by_type, json_schema_input_type=str | Placement)] | None
    ) = _MODEL.placement
    """How a worker with several GPUs uses them: components, layers or ulysses, or a mapping with `devices`.
    Default: components, if fleet.gpus_per_worker is more than 1."""
    ip_adapter: IpAdapter | None = None
    """IP-adapter. Rows then give its image as `ip_adapter_image`."""

    @property
    def options(self) -> Options:
        return Options(**{name: getattr(self, name) for name in Options.model_fields})


class BatchingSection(Section):
    """How rows share forwards."""

    mode: Mode = _BATCHING.mode
    """exact: every clip equals a plain diffusers call, bit for bit. fast: batched rows round differently,
    share decoders, and are one call of their pipeline if only prompts and seed differ."""
    max_rows: int = Field(default=_BATCHING.max_rows, ge=1)
    """Maximum number of rows in one forward."""
    min_gain: float = Field(default=_BATCHING.min_gain, ge=0)
    """Gain in rows per second that a larger batch must reach; 0 accepts every batch."""
    remember: bool = _BATCHING.remember
    """Store the results of batch tests on the workers' machines and in the output."""


class MediaSection(Section):
    """How clips are stored."""

    format: MediaFormat | None = None
    """mp4 (H.264, AAC), webm (VP9, Opus), mkv (lossless FFV1, FLAC), webp or gif (animated), png, png.zip
    (frames, layers), exr.zip (HDR), flac or wav (sound only). Default: mp4, png for images, png.zip for
    layers, flac for sound."""
    audio: bool = _MEDIA.audio
    """Store the sound of clips."""
    crf: int | None = Field(default=None, ge=0, le=100)
    """Quality on the encoder's scale, 0 is best: libx264 to 51 (default 18), libx265 to 51 (20), libvpx-vp9
    and libsvtav1 to 63 (24), webp to 100 (10)."""
    encoder: VideoEncoder | None = None
    """For mp4: libx264, libx265, libsvtav1 (AV1), or the GPU's h264_nvenc, whose bytes are not repeatable.
    For webm: libvpx-vp9 or libsvtav1. Default: the first."""
    fps: float | None = Field(default=None, ge=MIN_FPS, le=MAX_FPS)
    """Frames per second. Default: the row's, or the model's own."""
    previews: bool = _MEDIA.previews
    """Store a preview image of each clip, for galleries."""
    embed: Embed = _MEDIA.embed
    """Metadata to write into files: full (prompt, settings and row_id), id (row_id only) or none. tags: what
    version 0.1.0 wrote."""


class InputsSection(Section):
    """Images and videos that rows name."""

    roots: list[str] = Field(default_factory=list)
    """Folders and URLs below which rows may name files, in addition to the table's own folder. Public http(s)
    URLs need no root."""
    base: NonEmpty | None = None
    """Folder or URL where relative paths start; rows may name files in it too. Default: the table's folder,
    or without a table the job file's, or the current one."""


class RenderInputsSection(InputsSection):
    """Images and videos that rows name."""

    fit: Fit | None = None
    """How to fit a row's input images and videos to its size. crop: use the middle part. pad: add black bars.
    area: give the row their proportions, and as many pixels as its size. stretch: resize them as the pipeline
    does. Default: area for rows without height and width, crop for others."""


class LoraSection(Section):
    """A LoRA that rows may name."""

    path: NonEmpty
    """A .safetensors file, a folder, org/name on the hub, or a URL of a file or folder."""
    revision: NonEmpty | None = None
    """Branch, tag or commit on the hub. Default: main."""
    file: NonEmpty | None = None
    """File to load, if there are several."""
    component: Literal["transformer_2"] | None = None
    """Component to change, if not the one that diffusers chooses: transformer_2 is the low-noise model of Wan
    2.2."""
    allow_pickle: bool = False
    """Load a pickle of tensors."""


_Model = Annotated[ModelSection, BeforeValidator(_mapping, json_schema_input_type=str | ModelSection)]


class AgainstSection(Section):
    """A model that renders some clips once more with plain calls, and how many."""

    model: _Model
    """A folder, a hub model or a URL; or a mapping with the keys of `model`."""
    share: float = Field(default=0.01, gt=0, le=1)
    """Share of the rows; at least one of each recipe and shape."""
    levels: float = Field(default=2.0, ge=0, le=255)
    """Largest pixel difference (of 255) that is tolerated."""


class AuditSection(Section):
    """Rows rendered again by plain calls, to check that they are equal."""

    every: int = Field(default=_AUDIT.every, ge=0)
    """Compare each row with a probability of at least 1/every, the first of each recipe and shape more often;
    0: none."""
    at_most: float | None = Field(default=_AUDIT.at_most, gt=0, le=1)
    """Compare enough rows to say, if all are equal, that at most this share of the job's rows is wrong, with
    95 % confidence; `share` does not limit them then."""
    share: float | None = Field(default=_AUDIT.share, gt=0, le=1)
    """Maximum share of the models' time to spend on comparing. It may be exceeded by one row, e.g. in a small
    job. Default: 0.02, or no limit if `every` or `at_most` is set."""

    against: AgainstSection | None = None
    """Compare a random sample of the finished clips with plain calls of a model, e.g. those of another
    engine."""

    @property
    def of_batches(self) -> Audit:
        return Audit(**self.model_dump(exclude={"against"}))

    @model_validator(mode="after")
    def _has_audits(self) -> Self:
        self.of_batches  # noqa: B018  # raises for values that `Audit` refuses
        return self


class TableJob(Section):
    """One table, one model, one output, and where the work is done."""

    table: Annotated[NonEmpty, AfterValidator(without_scheme)] | None = None
    """Parquet, CSV or JSONL: a file, folder, glob or fsspec URL; a folder of images or videos; or lerobot://PLACE."""
    output: Annotated[NonEmpty, AfterValidator(dated), AfterValidator(without_scheme)]
    """Folder or fsspec URL, e.g. s3://bucket/run-7. {date} stands for today's date in UTC."""
    model: _Model
    """A folder, a hub model as org/name or org/name@revision, or a URL; or a mapping."""
    defaults: Arguments = Field(default_factory=dict)
    """Arguments for rows that do not set them; null removes the model's own default."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of the table to read arguments from, e.g. {prompt: caption}."""
    inputs: InputsSection = InputsSection()
    fleet: FleetSettings = FleetSettings()
    on_invalid: Literal["fail", "skip"] = "fail"
    """For rows that cannot be used: fail refuses the table, skip leaves them out."""
    storage_options: dict[str, Any] = Field(default_factory=dict, repr=False)  # may hold credentials
    """fsspec options to open table, model and output: key, secret, endpoint_url, ..."""
    _folder: str | None = PrivateAttr(default=None)
    _rows_file: str | None = PrivateAttr(default=None)

    def in_folder(self, folder: str) -> Self:
        """Return the job as if its file were in this folder, where its modules are."""
        job = self.model_copy()
        job._folder = folder
        return job

    def __eq__(self, other: object) -> bool:
        """Whether they say the same, wherever their files are."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def with_rows_in(self, file: str) -> Self:
        """Return the job with its rows read from this file, in place of `table`."""
        job = self.model_copy()
        job._rows_file = file
        return job

    @property
    def by_name(self) -> dict[str, ModelSection]:
        """Return all models; a job's only one has no name."""
        return {"": self.model}

    @property
    def rows_place(self) -> str | None:
        """Where the table's rows are."""
        return self._rows_file or self.table

    @property
    def folder(self) -> str | None:
        """The folder of the job file, where its modules are; None for a job without one."""
        return self._folder


class StepsSection(Section):
    """What is stored of the denoising steps, in the clip's file in extras/."""

    latents: list[int] | Literal["all"] = Field(default_factory=list)
    """Steps whose latents are stored: 0 is the noise, 1 what the first step returns, -1 what the last one
    returns; or all."""
    log_probs: bool = False
    """Store the log-probability of every step, for a stochastic scheduler."""
    sigmas: bool = False
    """Store the noise levels of the scheduler."""
    text_embeddings: bool = False
    """Store what the pipeline's encode_prompt returns."""


def _engine(value: object) -> object:
    if value is None:
        return None
    from framefleet.pipeline.engine import engine_of  # jobs without one need none

    return engine_of(value)


if TYPE_CHECKING:
    _Engine = Engine | None
else:
    _Engine = Annotated[Any, BeforeValidator(_engine, json_schema_input_type=dict[str, JsonValue] | None)]


class CoreJob(TableJob):
    """What is rendered, and how."""

    model_config = ConfigDict(title="framefleet job")

    model: _Model | None = None  # type: ignore[assignment]  # a training has one
    """A folder, a hub model as org/name or org/name@revision, or a URL; or a mapping."""
    engine: _Engine = None
    """Engine that renders instead of a local model, e.g. {type: videos_api, urls: [...], model: NAME}."""
    models: dict[str, _Model] = Field(default_factory=dict, max_length=_MAX_MODELS, validate_default=True)
    """Several models instead of `model`, by name. A column `model` names the model of each row."""
    sweep: Sweep = Field(default=Sweep(), validate_default=True)
    """Values of arguments to sweep. Each combination is a row, without a table or for each of its rows."""
    loras: dict[
        str, Annotated[LoraSection, BeforeValidator(_mapping, json_schema_input_type=str | LoraSection)]
    ] = Field(default_factory=dict)
    """LoRAs by name. A column `lora` names those of each row, e.g. style:0.8+detail:0.5."""
    second_models: dict[
        str,
        Annotated[
            SecondModelSection, BeforeValidator(_mapping, json_schema_input_type=str | SecondModelSection)
        ],
    ] = Field(default_factory=dict)
    """More models by name. Columns `image_model` and `keyframe_model` name those of each row."""
    recipe: NonEmpty = "generate"
    """generate, image_to_video, video_to_video, text_to_image_to_video, refine, extend, keyframes,
    text_to_keyframes_to_video, or yours as module:function."""
    overrides: Arguments = Field(default_factory=dict)
    """Arguments for all rows. Columns of the table with these names are ignored."""
    inputs: RenderInputsSection = RenderInputsSection()
    batching: BatchingSection = BatchingSection()
    audit: AuditSection = AuditSection()
    keep: StepsSection = StepsSection()
    keep_embeddings: bool = False
    """Store the results of text encoders in the output, and keep the encoders off the GPU."""
    media: MediaSection = MediaSection()
    order: str = Field(
        default="table",
        description="Which rows go first, among the few thousand that are read ahead. table: in its order. "
        "longest: those that take most time. priority:COLUMN: those with the highest number.",
    )
    retries: FaultPolicy = FaultPolicy()
    budget: JobBudget = JobBudget()

    @model_validator(mode="before")
    @classmethod
    def _has_workers_of_an_engine(cls, values: Any) -> Any:
        """Use the engine's number of workers, without GPUs, unless the job sets these."""
        written = values.get("engine") if isinstance(values, Mapping) else None
        fleet = values.get("fleet", {}) if written else None
        if isinstance(fleet, Mapping):
            engine: Any = _engine(written)
            usual = {"workers": engine.workers, "gpus_per_worker": 0}
            return {**values, "engine": engine, "fleet": {**usual, **fleet}}
        return values

    @field_validator("models")
    @classmethod
    def _has_a_model(cls, models: dict[str, ModelSection], others: ValidationInfo) -> dict[str, ModelSection]:
        if "model" in others.data and "engine" in others.data:
            are_set = [bool(models), others.data["model"] is not None, others.data["engine"] is not None]
            if sum(are_set) != 1:
                raise PydanticCustomError("both_models" if any(are_set) else "no_model", "missing")
        if not all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", name) for name in models):
            raise PydanticCustomError("names", "a mapping, with names of letters, digits, - and _")
        return models

    @property
    def by_name(self) -> dict[str, ModelSection]:
        if self.engine is not None:
            return {"": ModelSection(path=self.engine.name, device="cpu")}
        return self.models if self.model is None else {"": self.model}

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


if TYPE_CHECKING:

    class Job(CoreJob):
        """A `CoreJob` with the sections of plugins, each by its name."""

else:
    for _name in sorted(sections().keys() & CoreJob.model_fields.keys()):
        refuse_section(_name, f"it adds the section {_name!r}, which every job file has")
    _added = {}
    for _name, _section in sections().items():
        _kind, _default = (_section | None, None) if _name in runners() else (_section, _section())
        _added[_name] = _kind, Field(default=_default, description=inspect.getdoc(_section))
    Job = create_model("Job", __base__=CoreJob, __module__=__name__, __doc__=CoreJob.__doc__, **_added)


def has_changed(job: Job, section: str) -> bool:
    """Return whether a job sets anything in a section."""
    return bool(getattr(job, section) != Job.model_fields[section].default)


def sections_not_stored() -> set[str]:
    """Return the sections that are not written to job.json."""
    return {name for name, section in sections().items() if not section.is_stored}


def job_schema(section: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors, with a description of every key.

    section: one that makes another type of job, e.g. "train". Raises JobError for a section that does not.
    """
    other = job_kind([section]) if section else None
    if section and not other:
        fix = f"leave it out, or give one of {', '.join(sorted(job_kinds()))}"
        raise JobError(f"{section}: this section has no job schema of its own", fix)
    kind = other.schema if other else Job
    schema = kind.model_json_schema()
    definitions = schema["$defs"]
    if kind is Job:
        engines = {name: kind().model_json_schema() for name, kind in by_name("engines").items()}
        for engine in engines.values():
            definitions |= engine.pop("$defs", {}) | {engine["title"]: engine}
        refs = [{"$ref": f"#/$defs/{engine['title']}"} for engine in engines.values()]
        schema["properties"]["engine"]["anyOf"] = [*refs, {"type": "null"}]
    for mapping in (schema, *definitions.values()):
        for key in mapping.get("properties", {}).values():
            if name := key.get("$ref", "").rpartition("/")[2]:  # editors do not look there
                key.setdefault("description", definitions[name].get("description", ""))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        **({"oneOf": [{"required": [name]} for name in _RENDERING]} if kind is Job else {}),
    }
