"""The job file of a training, checked. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from framefleet.api.jobs import TableJob
from framefleet.api.models import DTypeName
from framefleet.api.sections import MustBe, Strict
from framefleet.cluster.fleet.settings import ElasticWorkers, FleetSettings

TrainedPart = Literal["denoiser", "autoencoder", "text_encoder"]
_Size = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]


class LoraSettings(Strict):
    """A LoRA instead of the weights themselves."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$"), MustBe("of letters, digits, - and _")] = Field(
        default="lora", description="Name of the LoRA file."
    )
    rank: int = Field(default=16, ge=1, description="Rank of the LoRA's matrices.")
    alpha: float | None = Field(default=None, gt=0, description="Default: the rank, so the scale is 1.")
    targets: list[str] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        min_length=1,
        description="Endings of the names of the layers.",
    )


class TrainSettings(Strict):
    """How weights are trained."""

    part: TrainedPart = Field(
        default="denoiser",
        description="denoiser: generate videos from prompts. autoencoder: reconstruct videos. "
        "text_encoder: give prompts and their paraphrases similar embeddings, and contrasts other ones.",
    )
    steps: int = Field(ge=1, description="Number of optimizer steps.")
    batch_size: int = Field(default=1, ge=1, description="Rows in one forward pass of one worker.")
    accumulation: int = Field(default=1, ge=1, description="Forward passes of each worker per step.")
    # At most what fp32 holds also where AdamW divides it by a small 1 - beta.
    learning_rate: float = Field(default=1e-4, gt=0, le=1000, description="Learning rate after the warm-up.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="Learning-rate schedule after the warm-up; linear and cosine end at 0.",
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps in which the learning rate rises from 0.")
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.9, 0.999], description="Both betas of AdamW."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay of AdamW.")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Norm that gradients are clipped to; null: never."
    )
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="Decay of the EMA of the weights, e.g. 0.999; the EMA is saved."
    )
    precision: DTypeName = Field(
        default="fp32", description="Dtype of forward passes; the trained weights stay fp32."
    )
    save_dtype: DTypeName = Field(
        default="fp32", description="Dtype of the weights that are written at the end; checkpoints are fp32."
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute activations twice instead of storing them: less memory, more time.",
    )
    only: list[str] = Field(
        default_factory=list, description="Train only weights whose names match these patterns (*)."
    )
    freeze: list[str] = Field(
        default_factory=list, description="Do not train weights whose names match these patterns (*)."
    )
    lora: LoraSettings | None = Field(
        default=None, description="Train a LoRA instead of the weights themselves."
    )
    prompt_dropout: float = Field(
        default=0.1, ge=0, le=1, description="Share of rows trained with an empty prompt, for guidance."
    )
    timesteps: Literal["uniform", "logit_normal"] = Field(
        default="uniform", description="How flow models draw noise levels; others are uniform."
    )
    fractional_timesteps: bool = Field(
        default=False,
        description="Show the denoiser of a flow model timesteps that are never rounded, also where its "
        "pipeline rounds them down to whole numbers, as Wan's does.",
    )
    sizes: list[_Size] = Field(
        default_factory=list,
        description="Buckets, each [num_frames, height, width]; a video goes to the nearest bucket that it "
        "fills. Default: the model's native size.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of noise, order and dropout.")
    strategy: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="ddp: every worker has all weights. fsdp: they are spread over the workers.",
    )
    prepared: str | None = Field(
        default=None,
        description="Folder or URL for latents and embeddings, which several trainings of the same videos "
        "can share. Default: the output.",
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Save a checkpoint every N steps.")
    keep_checkpoints: int = Field(default=2, ge=1, description="Number of checkpoints to keep.")
    sample_every: int | None = Field(default=None, ge=1, description="Render `samples` every N steps.")
    samples: list[dict[str, Any]] = Field(
        default_factory=list, description="Rows to render during training, e.g. {prompt: ..., seed: ...}."
    )


class TrainJob(TableJob):
    """What is trained, on which videos, and how.

    table: rows of `video` and `prompt`, or the records of a render job.
    """

    model_config = ConfigDict(title="framefleet training")

    table: Annotated[str, Field(min_length=1)]
    """Parquet, CSV or JSONL: a file, folder, glob or fsspec URL."""
    train: TrainSettings

    @field_validator("fleet")
    @classmethod
    def _is_fixed(cls, fleet: FleetSettings) -> FleetSettings:
        if isinstance(fleet.workers, ElasticWorkers):
            raise PydanticCustomError("workers", "a number of workers that does not change, or auto")
        if fleet.same_gpu:
            raise PydanticCustomError("same_gpu", "without same_gpu, which is for rendering")
        if fleet.gpus_per_worker != "auto" and fleet.gpus_per_worker > 1:
            raise PydanticCustomError("gpus", "at most 1, as several workers train together")
        return fleet
