"""From what networks take, each by itself, to what is on the GPU at once, and which options fit a card."""

from __future__ import annotations

from dataclasses import replace

import pytest

from framefleet.plugins.memory.blank_call import NetworkMemory
from framefleet.plugins.memory.footprint import CARDS_GB, GB, MEMORY_WAYS, OFFLOADS, Footprint, Way
from framefleet.plugins.memory.memory import ways_for

FOOTPRINT = Footprint(
    networks={
        "text_encoder": NetworkMemory(weights=10 * GB, held=2 * GB, peaks={"forward": GB}),
        "transformer": NetworkMemory(weights=20 * GB, held=GB, peaks={"forward": 4 * GB}),
        "vae": NetworkMemory(weights=GB, held=GB, peaks={"encode": 3 * GB, "decode": 9 * GB}),
    }
)


def in_tiles(footprint: Footprint) -> Footprint:
    vae = replace(footprint.networks["vae"], peaks={"encode": GB, "decode": 2 * GB})
    return replace(footprint, networks={**footprint.networks, "vae": vae})


def count(way: Way) -> Footprint:
    return in_tiles(FOOTPRINT) if way.vae_tiling else FOOTPRINT


@pytest.mark.parametrize(
    ("way", "gb"),
    [
        (Way(), 1 + 31 + 9),  # all weights, and the phase that needs most
        (Way(vae_tiling=True), 1 + 31 + 4),
        (Way(offload="model"), 1 + 20 + 4),  # the denoiser's moment
        (Way(offload="group"), 1 + 1 + 9),  # the decoder's
        (Way(offload="group", vae_tiling=True), 1 + 1 + 4),
    ],
)
def test_the_sum_is_made_of_weights_what_computes_and_what_is_always_there(way: Way, gb: float) -> None:
    assert count(way).peak_gb(way.offload) == gb
    assert Footprint(networks={}).peak_gb(way.offload) == 1


def test_each_offload_takes_less_and_a_larger_card_never_fits_less() -> None:
    for footprint in (FOOTPRINT, in_tiles(FOOTPRINT)):
        peaks = [footprint.peak_gb(offload) for offload in OFFLOADS]
        assert peaks == sorted(peaks, reverse=True)
    order = [*MEMORY_WAYS, None]
    first = [order.index(next(ways_for(count, card), None)) for card in CARDS_GB]
    assert first == sorted(first, reverse=True)


def test_tiles_are_offered_only_where_they_save_memory() -> None:
    calls: list[Way] = []

    def same(way: Way) -> Footprint:
        calls.append(way)
        return FOOTPRINT

    assert [*ways_for(same, 30)] == [Way(offload="model"), Way(offload="group")]
    assert len(calls) == 2  # one call for each way to decode, as each takes seconds
