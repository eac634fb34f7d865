"""A job's settings for speed and memory: text in, checked `Options` out. Does not import torch.

Caches have the parameters, names and defaults of diffusers or cache-dit, whose documentation explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import did_you_mean, must_be
from framefleet.pipeline.guards.strict_model import MustBe, Strict, by_type
from framefleet.pipeline.model.specs.dtypes import DTypeName

Range = Annotated[list[float], Field(min_length=2, max_length=2)]
Skip = Annotated[int, Field(ge=1)] | None
_Names = list[str] | None
DOWNLOADED = "_hub"  # suffix of attention kernels that are downloaded from the hub on first use


class FirstBlock(Strict):
    """FirstBlockCacheConfig: while the first block changes little, skip the others."""

    type: Literal["first_block"] = "first_block"
    threshold: float = Field(default=0.05, ge=0)


class TaylorSeer(Strict):
    """TaylorSeerCacheConfig: extrapolate the outputs of later steps."""

    type: Literal["taylor_seer"] = "taylor_seer"
    cache_interval: int = Field(default=5, ge=1)
    disable_cache_before_step: int = Field(default=3, ge=1)
    disable_cache_after_step: int | None = Field(default=None, ge=0)
    max_order: int = Field(default=1, ge=0)
    taylor_factors_dtype: DTypeName = "bf16"
    skip_predict_identifiers: _Names = None
    cache_identifiers: _Names = None
    use_lite_mode: bool = False


class Mag(Strict):
    """MagCacheConfig: skip steps while the ratios of residuals allow it. num_inference_steps: the row's."""

    type: Literal["mag"] = "mag"
    mag_ratios: list[float] = Field(min_length=1)
    threshold: float = Field(default=0.06, ge=0)
    max_skip_steps: int = Field(default=3, ge=0)
    retention_ratio: float = Field(default=0.2, ge=0, le=1)


class Pyramid(Strict):
    """PyramidAttentionBroadcastConfig: compute attention only every few steps."""

    type: Literal["pyramid"] = "pyramid"
    spatial_attention_block_skip_range: Skip = None
    temporal_attention_block_skip_range: Skip = None
    cross_attention_block_skip_range: Skip = None
    spatial_attention_timestep_skip_range: Range = Field(default=[100.0, 800.0])
    temporal_attention_timestep_skip_range: Range = Field(default=[100.0, 800.0])
    cross_attention_timestep_skip_range: Range = Field(default=[100.0, 800.0])


class Faster(Strict):
    """FasterCacheConfig: compute attention and the unconditional half only every few steps."""

    type: Literal["faster"] = "faster"
    spatial_attention_block_skip_range: int = Field(default=2, ge=1)
    temporal_attention_block_skip_range: Skip = None
    spatial_attention_timestep_skip_range: Range = Field(default=[-1.0, 681.0])
    temporal_attention_timestep_skip_range: Range = Field(default=[-1.0, 681.0])
    low_frequency_weight_update_timestep_range: Range = Field(default=[99.0, 901.0])
    high_frequency_weight_update_timestep_range: Range = Field(default=[-1.0, 301.0])
    alpha_low_frequency: float = 1.1
    alpha_high_frequency: float = 1.1
    unconditional_batch_skip_range: int = Field(default=5, ge=1)
    unconditional_batch_timestep_skip_range: Range = Field(default=[-1.0, 641.0])
    tensor_format: Literal["BCFHW", "BFCHW", "BCHW"] = "BCFHW"
    is_guidance_distilled: bool = False


class Sea(Strict):
    """SeaCacheConfig: skip steps between which the spectrum of the latents changes little."""

    type: Literal["sea"] = "sea"
    threshold: float = Field(default=0.25, ge=0)
    residual_order: Literal[0, 1] = 1
    retention_steps: int = Field(default=1, ge=0)
    cache_end_steps: int = Field(default=1, ge=0)
    max_consecutive_cached: int = Field(default=2, ge=0)
    power_exp: float = Field(default=3.0, gt=0)


class TextKV(Strict):
    """TextKVCacheConfig: compute keys and values of the text once for all steps."""

    type: Literal["text_kv"] = "text_kv"


class PackageSettings(BaseModel):
    """Settings of another package, whose own class checks them: their fields are not repeated here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class CacheDit(PackageSettings):
    """DBCacheConfig of cache-dit: while the first blocks change little, skip the others."""

    type: Literal["cache_dit"] = "cache_dit"


class TorchAo(Strict):
    """Weights quantized by torchao; dynamic types also quantize activations."""

    backend: Literal["torchao"]
    type: Literal[
        "int8_weight_only",
        "int8_dynamic",
        "int4_weight_only",
        "float8_weight_only",
        "float8_dynamic",
        "mxfp8_dynamic",
        "nvfp4_weight_only",
        "nvfp4_dynamic",
    ]
    components: list[str] | None = Field(default=None, min_length=1)


class Quanto(Strict):
    """Weights quantized by optimum-quanto."""

    backend: Literal["quanto"]
    type: Literal["int8", "int4", "int2", "float8"]
    components: list[str] | None = Field(default=None, min_length=1)


class OtherQuantization(PackageSettings):
    """Weights quantized by another backend of diffusers, with the arguments of its own config class."""

    # Each backend fits only one class, in the schema too: editors would refuse torchao if it fitted two.
    backend: str = Field(min_length=1, json_schema_extra={"not": {"enum": ["torchao", "quanto"]}})
    components: list[str] | None = Field(default=None, min_length=1)


class ModelOffload(Strict):
    """One component on the GPU at a time."""

    type: Literal["model"] = "model"


class GroupOffload(Strict):
    """A few blocks of the denoiser on the GPU at a time, and single layers of the other components."""

    type: Literal["group"] = "group"
    level: Literal["block", "leaf"] = "block"
    blocks: int = Field(default=1, ge=1)  # how many of the denoiser's at a time
    stream: bool = False  # copy the next ones meanwhile
    # A folder for the denoiser's weights, in place of host memory.
    disk: Annotated[str, Field(pattern="^[/~]|^[^:]+$"), MustBe("a local folder, not a URL")] | None = None


def _quantization_class(value: object) -> str:
    backend = value.get("backend") if isinstance(value, Mapping) else getattr(value, "backend", None)
    return backend if backend in ("torchao", "quanto") else "other"


Matmul = Literal["default", "no_split_k", "triton"]
Speed = Literal["compiled", "fastest"]
Cache = FirstBlock | TaylorSeer | Mag | Pyramid | Faster | Sea | TextKV | CacheDit
Offload = ModelOffload | GroupOffload
Quantization = TorchAo | Quanto | OtherQuantization
AnyCache = Annotated[Cache, Field(discriminator="type")]
AnyOffload = Annotated[Offload, Field(discriminator="type")]
CacheOrType = Annotated[AnyCache, BeforeValidator(by_type, json_schema_input_type=str | AnyCache)]
OffloadOrType = Annotated[AnyOffload, BeforeValidator(by_type, json_schema_input_type=str | AnyOffload)]
AnyQuantization = Annotated[
    Annotated[TorchAo, Tag("torchao")]
    | Annotated[Quanto, Tag("quanto")]
    | Annotated[OtherQuantization, Tag("other")],
    Discriminator(_quantization_class),
]

# What `speed` sets unless the job sets it. compiled: the model's own arithmetic, rounded in other places.
SPEEDS: Mapping[Speed, Mapping[str, Any]] = {
    "compiled": {"attention": "auto", "compile": True},
    "fastest": {
        "attention": "auto",
        "compile": True,
        "quantization": {"backend": "torchao", "type": "float8_dynamic"},
    },
}


class Options(Strict):
    """How a model computes, and where its weights are. The defaults are plain diffusers."""

    speed: Speed | None = Field(
        default=None,
        description="Preset of options for speed; options that the job sets itself win. "
        "compiled: the model's own arithmetic, rounded in other places; fastest: fp8 as well.",
    )
    attention: str | None = Field(
        default=None,
        min_length=1,
        description="A backend of diffusers' attention; auto: the fastest that works; unset: diffusers' own.",
    )
    compile: bool = Field(default=False, description="torch.compile of the denoiser's repeated blocks.")
    cache: CacheOrType | None = Field(
        default=None, description="Skip work between steps; a type, or a mapping with parameters."
    )
    layerwise_casting: Literal["fp8_e4m3", "fp8_e5m2"] | None = Field(
        default=None, description="Keep the denoiser's weights in fp8, and compute in its dtype."
    )
    quantization: AnyQuantization | None = Field(
        default=None,
        description="Quantize weights, e.g. {backend: torchao, type: int8_weight_only}. Default components: "
        "the denoisers.",
    )
    offload: OffloadOrType | None = Field(
        default=None, description="Move weights off the GPU while not in use: model, group, or a mapping."
    )
    matmul: Matmul | None = Field(
        default=None,
        description="How a GPU multiplies matrices. no_split_k (used if unset): as far as possible, a row's "
        "bits do not depend on the other rows in its batch; default: as torch does; triton: our own kernel.",
    )
    channels_last: bool = Field(
        default=False, description="Use channels_last for 2-d convolutions of the denoisers and the vae."
    )
    fuse_qkv: bool = Field(
        default=False, description="Compute query, key and value of the denoisers' attention in one product."
    )
    vae_tiling: bool = Field(default=False, description="Decode in tiles.")
    vae_slicing: bool = Field(default=False, description="Decode the frames or images of a batch one by one.")
    allow_unmatched_weights: bool = Field(
        default=False,
        description="Leave out weights of the model and of LoRAs that nothing uses, and log them, instead of "
        "refusing the file.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        """Add the options of the preset `speed`. An unknown preset is refused later, with other fields."""
        if not isinstance(values, dict) or not isinstance(speed := values.get("speed"), str):
            return values
        fields = {name: value for name, value in values.items() if value is not None}
        return {**SPEEDS.get(speed, {}), **fields}  # type: ignore[call-overload]

    def numerics(self) -> dict[str, Any]:
        """The options that are set: part of every row's identity, and enough to set them again.

        Of an offload's folder, only that there is one, because it may differ between machines. Of a preset,
        the options that it set.
        """
        fields = {name: getattr(self, name) for name in Options.model_fields if name != "speed"}
        numerics = {name: value for name, value in fields.items() if value not in (None, False)}
        for name, value in numerics.items():
            if isinstance(value, BaseModel):
                disk = {"disk": True} if isinstance(value, GroupOffload) and value.disk else {}
                numerics[name] = value.model_dump(exclude_none=True) | disk
        return numerics


def read_options(values: Mapping[str, Any]) -> Options:
    """Return options from keyword arguments, or from a record's numerics. Raises ModelError."""
    try:
        return Options.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        names = [*Options.model_fields, "dtype", "device", "loras", "placement", "revision", "threads"]
        raise ModelError(f"a model has no option {place!r}", did_you_mean(place, names))
    problem = f"model option {place} is {first['input']!r}"
    description = Options.model_fields[str(first["loc"][0])].description or ""
    raise ModelError(problem, f"it must be {must_be(first, description)}")
