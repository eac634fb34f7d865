"""Along which axes rows are joined, and which calls share a forward, is learned from the calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.denoising import batcher_of, render

ROWS = 4


class Noting(nn.Module):
    """Calls a function and notes the rows of each forward."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.rows: list[int] = []

    def forward(self, latents: Tensor, *others: Any) -> Tensor:
        self.rows.append(len(latents))
        return self.function(latents, *others)


def _shared(network: Noting, arguments: Sequence[tuple[Any, ...]]) -> int:
    """Return how many rows the last forward took, when all rows got what they get alone.

    Each row calls the network twice: the second call is fused by what was learned at the first.
    """
    with torch.no_grad():
        expected = [network.function(*own) for own in arguments]
    recipes = [lambda own=own: [network(*own) for _ in range(2)][1] for own in arguments]
    tasks = render(batcher_of(network, max_rows=ROWS), *recipes)
    assert [task.error for task in tasks] == [None] * len(tasks)
    for task, output in zip(tasks, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(task.value, output, strict=True))
    return network.rows[-1]


def _rows(*shape: int) -> list[Tensor]:
    return [torch.full(shape, float(row + 1)) for row in range(ROWS)]


def _with_layers(latents: Tensor, layers: Tensor) -> Tensor:  # (B, width), (layers, B, width)
    return latents + layers[0] * layers[2]


def _with_position(latents: Tensor, position: Tensor) -> Tensor:  # as long as a batch of one happens to be
    assert position.shape == (1,)
    return latents + position


def _with_table(latents: Tensor, table: Tensor) -> Tensor:  # of each row, which carries no rows: summed over
    assert table.shape == (3, 1, 4)
    return latents + table.sum()


def _with_time(latents: Tensor, time: Tensor) -> Tensor:  # (2, width), one for both prompts: Stable Audio's
    return latents + time[:, None]


@pytest.mark.parametrize(
    ("function", "latents", "others", "num_rows"),
    [
        (_with_layers, _rows(1, 4), _rows(3, 1, 4), ROWS),
        (_with_layers, _rows(2, 4), _rows(3, 2, 4), ROWS * 2),
        (_with_position, _rows(1, 4), [torch.arange(1)] * ROWS, ROWS),
        (_with_table, _rows(1, 4), _rows(3, 1, 4), 1),
        (_with_time, _rows(2, 4), _rows(1), ROWS * 2),
    ],
)
def test_rows_are_joined_along_the_axes_that_carry_them_or_kept_apart(
    function: Callable[..., Tensor], latents: list[Tensor], others: list[Tensor], num_rows: int
) -> None:
    assert _shared(Noting(function), list(zip(latents, others, strict=True))) == num_rows


class Padding(nn.Module):
    """Takes rows as lists, and pads each to a multiple of 8 before its only layer."""

    def __init__(self, *, leaks: bool = False) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.leaks = leaks
        self.rows: list[int] = []

    def forward(self, rows: list[Tensor], times: Tensor) -> list[Tensor]:
        self.rows.append(len(rows))
        lengths = [len(row) for row in rows]
        padded = [torch.cat([row, row.new_zeros(-len(row) % 8)]) for row in rows]
        hidden = self.layer(torch.cat(padded)).split([len(row) for row in padded])
        leaked = 0.1 * (max(lengths) - min(lengths)) if self.leaks else 0.0
        return [h[:n] * t + leaked for h, n, t in zip(hidden, lengths, times, strict=True)]


@pytest.mark.parametrize(
    ("leaks", "lengths", "expected"), [(False, (3, 5), 4), (True, (3, 5), 2), (False, (3, 9), 2)]
)
def test_lists_of_unequal_lengths_share_where_the_network_sees_no_difference(
    leaks: bool, lengths: tuple[int, int], expected: int
) -> None:
    network = Padding(leaks=leaks)
    arguments = [([torch.full((lengths[i % 2],), i + 1.0)], torch.tensor([2.0])) for i in range(ROWS)]
    with torch.no_grad():
        alone = [network(*own) for own in arguments]
    batcher = batcher_of(network, max_rows=ROWS)
    for _ in range(4):  # to see each length alone, then in company, and what is left of that
        tasks = render(batcher, *(lambda own=own: network(*own) for own in arguments))
        assert [task.error for task in tasks] == [None] * ROWS
        assert all(torch.equal(t.value[0], own[0]) for t, own in zip(tasks, alone, strict=True))
    assert network.rows[-1] == expected


@pytest.mark.parametrize("lengths", [(3, 5), (5, 3)])
def test_rows_of_one_length_prove_nothing_of_rows_of_several(lengths: tuple[int, int]) -> None:
    network = Padding(leaks=True)
    batcher = batcher_of(network, max_rows=16)
    arguments = [([torch.full((lengths[i // 16],), i + 1.0)], torch.tensor([2.0])) for i in range(32)]
    with torch.no_grad():
        alone = [network(*own) for own in arguments]
    for rows in [range(16), range(16, 32)] * 3 + [range(8, 24)] * 3:
        tasks = render(batcher, *(lambda own=arguments[row]: network(*own) for row in rows))
        assert all(torch.equal(task.value[0], alone[row][0]) for task, row in zip(tasks, rows, strict=True))
    assert network.rows[-1] == 8


class Attending(nn.Module):
    """Masks what fills rows up only where lengths differ; masked, large values round otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Masked()
        self.rows: list[int] = []

    def forward(self, rows: list[Tensor]) -> list[Tensor]:
        self.rows.append(len(rows))
        lengths = [len(row) for row in rows]
        padded = torch.stack([torch.cat([row, row.new_zeros(8 - len(row))]) for row in rows])
        mask = None if len(set(lengths)) == 1 else padded != 0
        return [h[:n] for h, n in zip(self.layer(padded, mask), lengths, strict=True)]


class Masked(nn.Module):
    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return hidden if mask is None else torch.where(hidden > 100, hidden * 1.001, hidden)


def test_rows_of_several_lengths_are_parted_where_only_they_need_a_mask() -> None:
    network = Attending()
    batcher = batcher_of(network, max_rows=16)
    for size in (1.0, 1.0, 1.0, 200.0):  # what the first rows do not show
        arguments = [[torch.full((3 + i % 2,), size + i)] for i in range(16)]
        tasks = render(batcher, *(lambda own=own: network(own) for own in arguments))
        assert all(torch.equal(t.value[0], own[0]) for t, own in zip(tasks, arguments, strict=True))
    assert network.rows[-1] == 8


class Remembering(nn.Module):
    """Writes to a cache at its first call for a row and reads it at the next, as Qwen-Image 2.1 does."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, latents: Tensor, cache: Any, mode: str) -> Tensor:
        self.rows.append(len(latents))
        if mode == "write":
            cache.layers[0].key = latents * 2
        return latents + cache.layers[0].key


class Layer:
    def __init__(self) -> None:
        self.key: Tensor | None = None


class Cache:
    def __init__(self) -> None:
        self.layers = [Layer()]


def test_rows_with_caches_of_their_own_share_forwards_that_write_and_read_them() -> None:
    network = Remembering()

    def recipe(row: int) -> Tensor:
        cache, latents = Cache(), torch.full((1, 4), float(row))
        for mode in ("write", "read", "read"):
            latents = network(latents, cache, mode)
        return latents

    with torch.no_grad():
        alone = [recipe(row) for row in range(ROWS)]
    batcher = batcher_of(network, max_rows=ROWS)
    for _ in range(2):
        network.rows.clear()
        tasks = render(batcher, *(lambda row=row: recipe(row) for row in range(ROWS)))
        assert [task.error for task in tasks] == [None] * ROWS
        assert all(torch.equal(task.value, own) for task, own in zip(tasks, alone, strict=True))
    assert network.rows == [ROWS] * 3


def test_rows_whose_texts_are_cut_share_with_those_of_one_length() -> None:
    class Cuts(nn.Module):
        """Notes the lengths of the texts in each forward; masks only where they differ."""

        def __init__(self) -> None:
            super().__init__()
            self.reader = nn.Identity()
            self.noted: list[list[int]] = []

        def forward(self, latents: Tensor, mask: Tensor) -> Tensor:
            lengths = mask.sum(dim=1).int().tolist()
            self.noted.append(lengths)
            text: Tensor = self.reader(latents[:, : max(lengths)])
            return text.sum(dim=1, keepdim=True) * (1 + (len(set(lengths)) > 1))

    network, lengths = Cuts(), [5, 3, 5, 3]
    rows = [(torch.full((1, 8), i + 2.0), (torch.arange(8) < n).float()[None]) for i, n in enumerate(lengths)]
    recipes = [lambda row=row: [network(*row) for _ in range(3)] for row in rows]
    tasks = render(batcher_of(network, max_rows=ROWS), *recipes)
    assert [task.value[-1].item() for task in tasks] == [(i + 2) * n for i, n in enumerate(lengths)]
    assert network.noted[-2:] == [[5, 5], [3, 3]]
