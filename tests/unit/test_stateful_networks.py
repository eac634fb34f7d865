"""What a network changes in itself from forward to forward is noticed; tables that it fills once are not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet.pipeline.render.fused.forwards import StateWatch


class Network(nn.Module):
    def __init__(self, keep: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)
        self.block.register_buffer("mean", torch.zeros(2))
        self.block.processor = SimpleNamespace(cache={})
        self.block.seen = []
        self.keep = keep

    def forward(self, latents: Tensor) -> Tensor:
        self.keep(self.block, latents)
        return self.block(latents)


def found(keep: Callable[[Any, Tensor], Any], *sizes: int) -> str | None:
    """Return what is noticed in forwards of these sizes."""
    network, watch = Network(keep), StateWatch()
    with torch.no_grad():
        for size in sizes:
            with watch.around("unet", network, ("unet", size)):
                network(torch.full((size, 2), float(size)))
    return watch.found


def fill(block: Any, latents: Tensor) -> None:
    block.processor.cache.setdefault(len(latents), torch.arange(len(latents)))


def made_anew(block: Any, latents: Tensor) -> None:
    block.table, block.sizes = torch.arange(2), {"rows": 2}


def in_place(block: Any, latents: Tensor) -> None:
    block.mean += latents.mean()


def replaced(block: Any, latents: Tensor) -> None:
    block.mean = block.mean + latents.mean()


def counted(block: Any, latents: Tensor) -> None:
    block.step = getattr(block, "step", 0) + 1


def in_a_processor(block: Any, latents: Tensor) -> None:
    block.processor.cache["last"] = latents


_calls: list[int] = []


def filled_late(block: Any, latents: Tensor) -> None:
    """Make tables in the third forward, whatever its shape is."""
    _calls.append(1)
    if len(_calls) >= 3 and not block.processor.cache:
        block.processor.cache["table"] = block.table = torch.arange(3)


def filled_late_and_again(block: Any, latents: Tensor) -> None:
    filled_late(block, latents)
    if len(_calls) == 5:
        block.table = torch.arange(4)


@pytest.mark.parametrize("keep", [fill, made_anew, lambda block, latents: None])
def test_tables_that_stay_are_no_state(keep: Callable[[Any, Tensor], Any]) -> None:
    assert found(keep, 1, 2, 1, 2, 1, 3, 3) is None


class Rotary:
    """A table as Z-Image's: an object that is no module, made at its first call and kept for ever."""

    def __init__(self) -> None:
        self.table: Any = None
        self.by_size: dict[int, Tensor] = {}
        self.grown = torch.arange(2)

    def fill(self, size: int) -> None:
        self.table = [torch.arange(4)] if self.table is None else self.table
        self.by_size.setdefault(size, torch.arange(size))
        self.grown = torch.arange(max(size, len(self.grown)))

    def begin(self, size: int) -> None:
        self.table = [torch.arange(4) + size]


def beside(use: Callable[[Rotary, int], None], *, is_shared: bool) -> str | None:
    """Return what is noticed in forwards of a network while others run, which use an object of theirs."""
    network, control = Network(left_alone), Network(left_alone)
    network.block.rotary = Rotary()
    control.block.rotary = network.block.rotary if is_shared else Rotary()
    watch = StateWatch(networks={"transformer": network}, all_networks=[network, control])
    for size in (3, 5, 5):
        use(network.block.rotary, size)  # as the ControlNet's forward does
        with watch.around("transformer", network, ("transformer", size)):
            network(torch.ones(size, 2))
    return watch.found


@pytest.mark.parametrize(
    ("use", "is_shared", "attribute"),
    [
        (Rotary.fill, True, None),  # a table that another network made
        (Rotary.begin, True, "transformer.block.rotary"),
        (Rotary.fill, False, "transformer.block.rotary"),  # where nothing was
    ],
)
def test_what_others_write_where_a_network_reads_is_state_unless_it_is_a_table_of_theirs(
    use: Callable[[Rotary, int], None], is_shared: bool, attribute: str | None
) -> None:
    assert beside(use, is_shared=is_shared) == attribute


def test_a_table_that_is_made_late_is_no_state_as_long_as_it_stays() -> None:
    _calls.clear()
    assert found(filled_late, 1, 1, 1, 1, 1) is None
    _calls.clear()
    assert found(filled_late_and_again, 1, 1, 1, 1) is None
    _calls.clear()
    assert found(filled_late_and_again, 1, 1, 1, 1, 1) == "unet.block.table"


@pytest.mark.parametrize(
    ("keep", "attribute"),
    [
        (in_place, "unet.block.mean"),
        (replaced, "unet.block.mean"),
        (counted, "unet.block.step"),
        (in_a_processor, "unet.block.processor"),
        (lambda block, latents: block.seen.append(1), "unet.block.seen"),
    ],
)
def test_state_is_noticed_in_the_second_forward_of_a_shape(
    keep: Callable[[Any, Tensor], Any], attribute: str
) -> None:
    assert found(keep, 1, 2) is None
    assert found(keep, 1, 2, 1) == attribute


def test_what_is_switched_for_each_row_is_no_state() -> None:
    network = Network(counted)
    watch = StateWatch([network.block])
    for _ in range(3):
        with watch.around("unet", network, "unet"):
            network(torch.ones(1, 2))
    assert watch.found is None


def left_alone(block: Any, latents: Tensor) -> None:
    """Keep nothing."""


def test_what_a_pipeline_changes_for_a_row_is_noticed_and_put_back_for_the_next() -> None:
    network = Network(left_alone)
    watch = StateWatch(networks={"unet": network})
    network.block.processor = SimpleNamespace(cache={}, scale=3.0)  # as a call sets its own attention
    with watch.around("unet", network, "unet"):
        network(torch.ones(1, 2))
    assert watch.found == "unet.block.processor"
    watch.restore()
    assert not hasattr(network.block.processor, "scale")


def test_a_change_between_forwards_is_noticed_and_one_for_all_rows_is_not() -> None:
    for is_for_all, attribute in ((True, None), (False, "unet.block.backend")):
        network, watch = Network(left_alone), StateWatch()
        for backend in ("native", "flash"):
            network.block.backend = backend
            with watch.around("unet", network, "unet"):
                network(torch.ones(1, 2))
            if is_for_all:
                watch.forget()
        assert watch.found == attribute
