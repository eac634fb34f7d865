"""The probe finds the modules that round differently in company, and pins just them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet.pipeline.render.fused.calls import EACH, Method, parse_call
from framefleet.pipeline.render.fused.exact import are_equal, masks_matter, probe
from framefleet.pipeline.render.fused.pins import Plan, run_fused

WIDTH = 128  # wide enough to prove a module equal in fp32, too narrow in half precision


class Function(nn.Module):
    """Any function as a leaf module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class Net(nn.Module):
    """Children by name, run in order; `after` is code of the composite's own."""

    def __init__(self, after: Callable[[Tensor], Tensor] | None = None, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.after = after

    def forward(self, latents: Tensor) -> Any:
        for child in self.children():
            latents = child(latents)
        return self.after(latents) if self.after else latents


def _double(value: Tensor) -> Tensor:
    return value * 2


def _shift(value: Tensor) -> Tensor:
    """Rounds differently in company."""
    return value + 1e-3 * (value.shape[0] > 1)


def _probe(module: nn.Module, rows: Sequence[Tensor]) -> Plan | None:
    """Probe, and check that what the plan gives is equal indeed."""
    calls = [parse_call("unet", (row,), {}) for row in rows]
    outputs = [(module(row), ()) for row in rows]
    plan = probe(Method(module), calls, outputs, calls[0].axes)
    if plan is not None:
        assert are_equal(run_fused(Method(module), calls, plan), outputs)
    return plan


def _rows(num_rows: int = 3, batch: int = 1, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, WIDTH, generator=generator).to(dtype) for _ in range(num_rows)]


def _pins(module: nn.Module, rows: Sequence[Tensor] | None = None) -> list[str] | None:
    plan = _probe(module, rows or _rows())
    return None if plan is None else sorted(plan.pins)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_module_that_rounds_differently_in_company_is_pinned(batch: int) -> None:
    class Shifty(nn.Linear):
        def forward(self, value: Tensor) -> Tensor:
            return value + 1e-3 * (value.shape[0] > batch)

    module = Net(one=Function(_double), odd=Shifty(1, 1), two=Function(_double))
    assert _pins(module, _rows(batch=batch)) == ["odd"]


def _add_in_place(value: Tensor) -> Tensor:
    return value.add_(1e-3 * (value.shape[0] > 1)).mul_(2)


def _turned(value: Tensor) -> Tensor:
    """Equal values, in other strides."""
    square = value.reshape(-1, 8, 16)
    return square.clone() if len(value) == 1 else square.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize(
    ("module", "pins"),
    [
        (Net(one=Function(_double), two=Function(_double)), []),
        (Function(_double), []),  # without inner modules
        (Net(one=Function(_double), block=Net(_shift, inner=Function(_double))), ["block"]),
        (Net(_shift, one=Function(_double)), None),  # the model itself differs
        (Net(noise=Function(lambda value: value + torch.randn_like(value))), None),  # it repeats nothing
        (Net(turned=Function(_turned), last=Function(lambda value: value.flatten(1))), ["turned"]),
        (Net(copy=Function(torch.clone), act=Function(_add_in_place), relu=nn.ReLU(inplace=True)), ["act"]),
    ],
)
def test_what_differs_is_pinned_with_all_that_its_code_runs_or_refuses_the_size(
    module: nn.Module, pins: list[str] | None
) -> None:
    assert _pins(module) == pins
    assert not any("forward" in vars(child) for child in module.modules()), "nothing stays on the model"


def test_small_modules_in_half_precision_are_pinned_since_rounding_hides_differences() -> None:
    module = Net(one=Function(_double))
    assert _pins(module, _rows(dtype=torch.float32)) == []
    assert _pins(module, _rows(dtype=torch.bfloat16)) == ["one"]


def test_a_difference_that_these_rows_do_not_show_is_found_with_random_ones() -> None:
    def rare(value: Tensor) -> Tensor:
        return torch.where(value > 2.5, _shift(value), value)

    rows = [row.clamp(-1, 1) for row in _rows()]
    assert _pins(Net(rare=Function(rare)), rows) == ["rare"]


def test_a_module_that_is_called_twice_is_pinned_in_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self, odd: nn.Module) -> None:
            super().__init__()
            self.odd = odd

        def forward(self, latents: Tensor) -> Any:
            return self.odd(self.odd(latents).reshape(-1, 8, 16)).flatten(1)

    plan = _probe(Twice(Function(_shift)), _rows())
    assert plan is not None
    assert [len(traces) for traces in plan.pins.values()] == [2]
    # A pin inside a pinned composite does not confuse its other calls.
    assert _pins(Twice(Net(_shift, inner=Function(_shift)))) == ["odd", "odd.inner"]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "view",
    [
        lambda value: value[..., :8],  # holes between the values
        lambda value: value.transpose(0, 1).contiguous().transpose(0, 1),  # the batch is not outermost
        lambda value: value.permute(0, 2, 1),
        lambda value: value[:, :1].expand(-1, 5, -1),
    ],
    ids=["holes", "inner batch", "permuted", "expanded"],
)
def test_pinned_modules_may_return_any_view(view: Callable[[Tensor], Tensor], batch: int) -> None:
    def odd(value: Tensor) -> Any:
        return view(value.reshape(-1, 8, 16) + 1e-3 * (value.shape[0] > batch))

    module = Net(odd=Function(odd), last=Function(lambda value: value.flatten(1) * 2))
    assert "odd" in (_pins(module, _rows(batch=batch)) or [])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_module_that_is_given_one_row_for_all_beside_those_of_the_rows_is_pinned(batch: int) -> None:
    class Timed(nn.Module):  # Qwen-Image 2.1 embeds the time of each row, and one of zero
        def __init__(self) -> None:
            super().__init__()
            self.odd = Function(lambda times: times + 1 + 1e-3 * (len(times) > batch + 1))

        def forward(self, latents: Tensor) -> Any:
            times = self.odd(torch.cat([latents, latents.new_zeros(1, WIDTH)]))
            return latents * times[:-1] + times[-1:]

    assert _pins(Timed(), _rows(batch=batch)) == ["odd"]


def test_a_module_that_is_given_copies_of_what_is_one_for_a_row_is_pinned() -> None:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Function(_shift)

        def forward(self, latents: Tensor, time: Tensor) -> Any:
            return latents * self.odd(time[:, None].expand(-1, WIDTH))

    module = Timed()
    calls = [parse_call("unet", (row, row[0, :1]), {}) for row in _rows(batch=2)]
    outputs = [(module(*call.leaves), ()) for call in calls]
    plan = probe(Method(module), calls, outputs, (0, EACH))
    assert plan is not None
    assert list(plan.pins) == ["odd"]
    assert are_equal(run_fused(Method(module), calls, plan), outputs)


def test_rows_with_nan_are_equal_when_their_bits_are() -> None:
    rows = _rows()
    rows[1][0, 3] = torch.nan
    assert _pins(Net(one=Function(_double), odd=Function(_shift)), rows) == ["odd"]


def test_tensors_are_equal_only_bit_for_bit() -> None:
    assert are_equal(torch.tensor([torch.nan]), torch.tensor([torch.nan]))
    assert not are_equal(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not are_equal(torch.tensor([0.0]), torch.tensor([0]))
    assert not are_equal(torch.tensor([0.0]), torch.tensor([[0.0]]))


class Reads(nn.Module):
    """Reads a text by an inner module: up to where its mask ends if it cuts such lengths, else masked."""

    def __init__(self, cuts: Callable[[list[int]], bool], factor: float = 1.0) -> None:
        super().__init__()
        self.reader = Function(_double)
        self.cuts, self.factor = cuts, factor

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1).int().tolist()
        is_cut = self.cuts(lengths)
        whole: Tensor = self.reader(text[:, : lengths[0]] if is_cut else text * mask)
        return latents + whole.sum(dim=1, keepdim=True) * (1.0 if is_cut else self.factor)


def _texts(lengths: Sequence[int]) -> list[dict[str, Tensor]]:
    """Return the arguments of rows whose texts, of small whole numbers, are so long."""
    texts = [row[:, :8].round() for row in _rows(len(lengths))]
    masks = [(torch.arange(8) < length).float()[None] for length in lengths]
    return [{"latents": text, "text": text, "mask": mask} for text, mask in zip(texts, masks, strict=True)]


@pytest.mark.parametrize(
    ("module", "matters", "one_length", "others"),
    [
        (Reads(lambda lengths: False), False, True, True),
        (Reads(lambda lengths: len({*lengths}) == 1, 1 + 1e-3), True, True, False),  # Lumina 2
        (Reads(lambda lengths: len(lengths) == 1), True, False, False),  # FramePack
    ],
)
def test_rows_share_what_masks_make_of_a_text_only_if_it_is_the_same_alone(
    module: nn.Module, matters: bool, one_length: bool, others: bool
) -> None:
    for lengths, is_shared in (((5, 5, 5), one_length), ((5, 3, 4), others)):
        rows = _texts(lengths)
        calls = [parse_call("transformer", (), row) for row in rows]
        outputs = [(module(**row), ()) for row in rows]
        assert masks_matter(Method(module), calls[0]) == matters
        plan = probe(Method(module), calls, outputs, calls[0].axes)
        assert (plan is not None) == is_shared


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of short texts"), ValueError("a mask of 5")])
def test_a_network_that_takes_no_other_masks_has_none_that_matter_unless_memory_ran_out(
    error: Exception,
) -> None:
    class Strict(Reads):
        def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
            if mask.sum() != 5:
                raise error
            return super().forward(latents, text, mask)

    module, rows = Strict(lambda lengths: False), _texts((5, 5, 5))
    calls = [parse_call("transformer", (), row) for row in rows]
    outputs = [(module(**row), ()) for row in rows]
    if isinstance(error, ValueError):
        assert not masks_matter(Method(module), calls[0])
        return
    with pytest.raises(torch.OutOfMemoryError):
        probe(Method(module), calls, outputs, calls[0].axes)
