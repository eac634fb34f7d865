"""The probe finds the modules that round differently in company, and pins just them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet.pipeline.render.fused.calls import EACH, Method, parse_call
from framefleet.pipeline.render.fused.concatenation import layouts
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


def test_a_model_that_is_equal_anyway_needs_no_pins() -> None:
    assert _pins(Net(one=Function(_double), two=Function(_double))) == []


def test_a_model_without_inner_modules_needs_no_pins() -> None:
    assert _pins(Function(_double)) == []


@pytest.mark.parametrize("batch", [1, 2])
def test_a_module_that_rounds_differently_in_company_is_pinned(batch: int) -> None:
    class Shifty(nn.Linear):
        def forward(self, value: Tensor) -> Tensor:
            return value + 1e-3 * (value.shape[0] > batch)

    module = Net(one=Function(_double), odd=Shifty(1, 1), two=Function(_double))
    assert _pins(module, _rows(batch=batch)) == ["odd"]


def test_code_of_a_composite_that_differs_pins_the_composite() -> None:
    module = Net(one=Function(_double), block=Net(_shift, inner=Function(_double)))
    assert _pins(module) == ["block"]


def test_code_of_the_model_itself_that_differs_refuses_the_size() -> None:
    assert _pins(Net(_shift, one=Function(_double))) is None


def test_a_model_that_does_not_repeat_itself_is_refused() -> None:
    assert _pins(Net(noise=Function(lambda value: value + torch.randn_like(value)))) is None


def test_equal_values_in_other_strides_are_pinned() -> None:
    def turned(value: Tensor) -> Tensor:
        square = value.reshape(-1, 8, 16)
        return square.clone() if len(value) == 1 else square.transpose(1, 2).contiguous().transpose(1, 2)

    module = Net(turned=Function(turned), last=Function(lambda value: value.flatten(1)))
    assert _pins(module) == ["turned"]


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
        def __init__(self) -> None:
            super().__init__()
            self.odd = Function(_shift)

        def forward(self, latents: Tensor) -> Any:
            return self.odd(self.odd(latents).reshape(-1, 8, 16)).flatten(1)

    plan = _probe(Twice(), _rows())
    assert plan is not None
    assert [len(traces) for traces in plan.pins.values()] == [2]


def test_a_pin_inside_a_pinned_composite_does_not_confuse_its_other_calls() -> None:
    block = Net(_shift, inner=Function(_shift))

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, latents: Tensor) -> Any:
            return self.block(self.block(latents))

    assert _pins(Blocks()) == ["block", "block.inner"]


def test_tables_that_are_the_same_for_all_rows_are_not_pinned() -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = Function(lambda value: torch.arange(WIDTH) + value[0, 0] * 0)
            self.odd = Function(_shift)

        def forward(self, latents: Tensor) -> Any:
            return self.odd(latents) + self.table(latents)

    assert _pins(Rotary()) == ["odd"]


def test_modules_that_work_in_place_keep_their_meaning() -> None:
    def add_in_place(value: Tensor) -> Tensor:
        return value.add_(1e-3 * (value.shape[0] > 1)).mul_(2)

    module = Net(copy=Function(torch.clone), act=Function(add_in_place), relu=nn.ReLU(inplace=True))
    assert _pins(module) == ["act"]


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


def test_nothing_stays_on_the_model() -> None:
    module = Net(block=Net(inner=Function(_shift)))
    _probe(module, _rows())
    assert not any("forward" in vars(child) for child in module.modules())


class CutsText(nn.Module):
    """Cuts the text of a single row off where its mask ends, and masks that of several."""

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        if len(latents) == 1:
            return latents + text[:, : int(mask.sum())].mean(dim=1, keepdim=True)
        return latents + (text * mask).mean(dim=1, keepdim=True)


class Reads(nn.Module):
    """Reads a text up to where its mask ends, by an inner module."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Function(_double)

    def read(self, text: Tensor, length: int) -> Tensor:
        whole: Tensor = self.reader(text[:, :length])
        return whole.sum(dim=1, keepdim=True)


class CutsAlike(Reads):
    """Masks only where rows are not of one length: Lumina 2."""

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1).int().tolist()
        if len(set(lengths)) == 1:
            return latents + self.read(text, lengths[0])
        return latents + self.read(text * mask, max(lengths)) * (1 + 1e-3)


class CutsAlone(Reads):
    """Cuts the text of a single row and masks that of several: FramePack. Here to the very same bits."""

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        if len(latents) == 1:
            return latents + self.read(text, int(mask.sum()))
        return latents + self.read(text * mask, mask.shape[1])


class Masks(Reads):
    """Masks every text."""

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        return latents + self.read(text * mask, mask.shape[1])


def _texts(lengths: Sequence[int]) -> list[dict[str, Tensor]]:
    """Return the arguments of rows whose texts, of small whole numbers, are so long."""
    texts = [row[:, :8].round() for row in _rows(len(lengths))]
    masks = [(torch.arange(8) < length).float()[None] for length in lengths]
    return [{"latents": text, "text": text, "mask": mask} for text, mask in zip(texts, masks, strict=True)]


@pytest.mark.parametrize(
    ("kind", "matters", "one_length", "others"),
    [(Masks, False, True, True), (CutsAlike, True, True, False), (CutsAlone, True, False, False)],
)
def test_rows_share_what_masks_make_of_a_text_only_if_it_is_the_same_alone(
    kind: type[nn.Module], matters: bool, one_length: bool, others: bool
) -> None:
    module = kind()
    for lengths, is_shared in (((5, 5, 5), one_length), ((5, 3, 4), others)):
        rows = _texts(lengths)
        calls = [parse_call("transformer", (), row) for row in rows]
        outputs = [(module(**row), ()) for row in rows]
        assert masks_matter(Method(module), calls[0]) == matters
        plan = probe(Method(module), calls, outputs, calls[0].axes)
        assert (plan is not None) == is_shared


def test_a_network_that_takes_no_other_masks_has_none_that_matter() -> None:
    class Strict(Masks):
        def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
            if mask.sum() != 5:
                raise ValueError("a mask of 5")
            return super().forward(latents, text, mask)

    module = Strict()
    call = parse_call("transformer", (), _texts([5])[0])
    assert not masks_matter(Method(module), call)


def test_a_plan_that_memory_runs_out_for_is_not_taken_for_proven() -> None:
    class Full(Masks):
        def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> Tensor:
            if mask.sum() == 2:
                raise torch.OutOfMemoryError("of texts as short as this")
            return super().forward(latents, text, mask)

    module, rows = Full(), _texts((5, 5, 5))
    calls = [parse_call("transformer", (), row) for row in rows]
    outputs = [(module(**row), ()) for row in rows]
    with pytest.raises(torch.OutOfMemoryError):
        probe(Method(module), calls, outputs, calls[0].axes)


def test_rows_whose_texts_are_full_prove_nothing_for_shorter_ones() -> None:
    module = CutsText()
    full = [{"latents": row, "text": row[:, :8], "mask": torch.ones(1, 8)} for row in _rows()]
    calls = [parse_call("transformer", (), row) for row in full]
    outputs = [(module(**row), ()) for row in full]
    plan = Plan(calls[0].axes, {}, layouts(outputs[0]))
    assert are_equal(run_fused(Method(module), calls, plan), outputs)
    assert probe(Method(module), calls, outputs, calls[0].axes) is None
