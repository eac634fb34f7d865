"""The attention backend of one model: set, replaced when it refuses a call, kept when it did not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

from framefleet.pipeline.model.options.attention import (
    Attention,
    AttentionChanged,
    candidates,
    has_choice,
    works,
)

REFUSED = RuntimeError("no such kernel")


def transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, ffn_dim=8, text_dim=8, num_layers=1
    )


def takes(model: WanTransformer3DModel, *names: str) -> Callable[[], None]:
    """A call that only these backends take."""

    def call() -> None:
        if model.blocks[0].attn1.processor._attention_backend.value not in names:
            raise REFUSED

    return call


def test_a_refused_call_goes_to_the_next_backend_that_takes_it() -> None:
    model = transformer()
    attention = Attention({"transformer": model}, ["_native_flash", "_native_math", "native"])
    with pytest.raises(AttentionChanged):
        attention.replace(takes(model, "native"), REFUSED)
    assert attention.name == "native"
    assert model.blocks[0].attn2.processor._attention_backend is AttentionBackendName.NATIVE


@pytest.mark.parametrize(("names", "error"), [((), REFUSED), (("native",), torch.OutOfMemoryError("20 GiB"))])
def test_what_every_backend_raises_and_memory_that_ran_out_are_no_refusals(
    names: tuple[str, ...], error: RuntimeError
) -> None:
    model = transformer()
    attention = Attention({"transformer": model}, ["_native_flash", "native"])
    attention.replace(takes(model, *names), error)
    assert attention.name == "_native_flash"
    assert model.blocks[0].attn1.processor._attention_backend is AttentionBackendName._NATIVE_FLASH


def test_the_default_of_the_process_stays_as_it_was() -> None:
    query = torch.randn(1, 16, 2, 8)
    before = dispatch_attention_fn(query, query, query)
    Attention({"transformer": transformer()}, ["_native_math"])
    assert torch.equal(dispatch_attention_fn(query, query, query), before)
    assert not torch.equal(dispatch_attention_fn(query, query, query, backend="_native_math"), before)


def test_on_a_cpu_auto_has_two_names_for_one_kernel() -> None:
    assert has_choice(transformer())
    assert all(works(name, device="cpu", dtype=torch.float32) for name in candidates("cpu"))
    assert not works("flash", device="cpu", dtype=torch.float32)
