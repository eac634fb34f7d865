"""How a model uses several devices: `model.placement` in a job; plugins add types of placement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import did_you_mean, settings_of
from framefleet.pipeline.guards.strict_model import Strict, by_type
from framefleet.pipeline.plugin import by_name

if TYPE_CHECKING:
    from torch import nn

    from framefleet.pipeline.model.model import ModelSettings
    from framefleet.pipeline.model.specs.spec import PipelineSpec


class Placement(Strict):
    """Several devices for one model. The bits are the same, so it is not part of a row's identity."""

    type: str = Field(description="components, layers, ulysses, ulysses+components, or a type of a plugin.")
    devices: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Number of GPUs; on a CPU, of processes. Default: all GPUs that the worker has.",
    )
    ranks: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="With ulysses+components: number of GPUs that compute the denoisers. Default: all.",
    )


def placement_of(value: Placement | Mapping[str, Any] | str | None) -> Placement | None:
    """Return the placement for a program's argument. Raises ModelError."""
    if value is None or isinstance(value, Placement):
        return value
    fix = "use components, layers or ulysses, or a mapping with type and devices"
    return settings_of(Placement, by_type(value), place="placement", fix=fix)


class Placer:
    """Puts one model on several devices. Plugins add subclasses, see `Plugin.placements`."""

    # Whether rows may share forwards.
    shares_forwards: ClassVar[bool] = True
    # Whether some devices may compute only the denoisers, and others the rest.
    takes_ranks: ClassVar[bool] = False

    def __init__(self, placement: Placement, device: str) -> None:
        """device: the model's, which a plain script would use."""
        self.placement, self.device = placement, device
        self.shares: Sequence[Mapping[str, float]] = ()  # set by `place`: for each device, its networks

    def spread(self, sizes: Mapping[str, float], num: int) -> list[dict[str, float]]:
        """Return for each of `num` devices its share of the networks. sizes: bytes by network."""
        raise NotImplementedError

    def check(self, settings: ModelSettings, spec: PipelineSpec, packed: Mapping[str, str]) -> None:
        """Raise ModelError if the model cannot be placed. Called before weights are read, also without GPUs.

        packed: the method of each component whose weights are packed.
        """

    def check_gpus(self, num: int) -> None:
        """Raise ModelError if `num` GPUs are too few. Not called on a CPU."""
        devices = self.placement.devices
        needed = devices or self.placement.ranks or 2
        if needed > num:
            least = "" if devices else "at least "
            raise ModelError(
                f"model.placement: {self.placement.type} needs {least}{needed} GPUs, and a worker or process "
                f"has {num}",
                f"set fleet.gpus_per_worker to {needed}, or leave model.placement out",
            )

    def check_denoisers(self, denoisers: Mapping[str, nn.Module], num: int) -> None:
        """Raise ModelError if `num` devices cannot compute the denoisers, which may be without weights."""

    @abstractmethod
    def place(self, pipe: Any) -> None:
        """Put the networks of a pipeline on the devices, in place of `pipe.to(device)`."""

    def begin(self, *, is_exact: bool) -> None:
        """Called before rows are rendered. is_exact: they must have the same bits as on one device."""

    def alone(self) -> AbstractContextManager[None]:
        """Compute like a single device while the block runs: for plain calls, which judge all others."""
        return nullcontext()

    def close(self) -> None:
        """End what was started."""

    @property
    def environment(self) -> dict[str, str]:
        """For records: the type, and the networks of each device."""
        placed = "; ".join(", ".join(share) for share in self.shares)
        return {"placement": self.placement.type, "placed": placed}


def placer_of(placement: Placement, device: str) -> Placer:
    """Return a new Placer. Raises ModelError for an unknown type."""
    if placement.type not in (types := by_name("placements")):
        problem = f"model.placement is {placement.type!r}, but there is no such placement"
        raise ModelError(problem, did_you_mean(placement.type, types))
    kind: type[Placer] = types[placement.type]()
    if placement.ranks and not kind.takes_ranks:
        problem = f"model.placement: ranks is {placement.ranks}, but {placement.type} takes no ranks"
        raise ModelError(problem, "leave out ranks, or use ulysses+components")
    if placement.ranks and placement.devices and placement.ranks > placement.devices:
        problem = f"model.placement: ranks is {placement.ranks}, but devices is {placement.devices}"
        raise ModelError(problem, "ranks may be at most devices")
    return kind(placement, device)
