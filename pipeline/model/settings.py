"""What a caller or a job says about its model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.model.ip_adapter.files import IpAdapter
from framefleet.pipeline.model.loras.lora import Lora
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.source import public_name
from framefleet.pipeline.model.specs.dtypes import DType, asked


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What a job says about its model.

    path: a diffusers pipeline folder, a hub model, or a URL of a folder; see `open_source`.
    revision: of a hub model. lock: a lock file, if not the model's own. storage_options: to open a URL.
    dtype: of all components, or of each; see `dtypes`. device: auto is the GPU where there is one.
    license: what records call it; None: as its card or its preset has it.
    threads: of torch, on the CPU. loras: that rows may name; which ones a row uses is among its arguments.
    ip_adapter: whose image every row gives. options: see `Options`.
    """

    path: str
    revision: str | None = None
    lock: str | None = None
    allow_pickle: bool = False
    license: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    dtype: DType = "auto"
    device: str = "auto"
    threads: int = 1
    loras: Mapping[str, Lora] = field(default_factory=dict)
    ip_adapter: IpAdapter | None = None
    options: Options = field(default_factory=Options)

    @property
    def name(self) -> str:
        """What records and messages call the model; it opens it again."""
        return public_name(self.path, self.revision)

    def numerics(self, mode: str) -> dict[str, Any]:
        """What of it decides the frames: part of every row's identity."""
        fixed = {"dtype": asked(self.dtype), "threads": self.threads, "batching": mode, "generator": "cpu"}
        scale = {"ip_adapter_scale": self.ip_adapter.scale} if self.ip_adapter else {}
        return fixed | scale | self.options.numerics()
