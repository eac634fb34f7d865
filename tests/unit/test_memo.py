"""Text encoders run once for each distinct input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from framefleet.pipeline.render.text_encoders import Memo


class Encoder:
    """Counts what it really encodes."""

    def __init__(self) -> None:
        self.num_forwards = 0

    def forward(self, ids: Tensor, mask: Tensor | None = None, **options: Any) -> BaseModelOutput:
        self.num_forwards += 1
        state = ids.float().unsqueeze(-1).expand(*ids.shape, 4).contiguous()
        hidden = (state, state + 1) if options.get("output_hidden_states") else None
        return BaseModelOutput(last_hidden_state=state, hidden_states=hidden, **options.get("extra", {}))


def _ask(memo: Memo, encoder: Encoder, ids: list[int], **kwargs: Any) -> Any:
    with torch.no_grad():
        return memo("text_encoder", encoder.forward, torch.tensor([ids]), **kwargs)


def test_other_ids_masks_options_and_encoders_are_encoded_again() -> None:
    memo, encoder = Memo(), Encoder()
    _ask(memo, encoder, [1, 2])
    _ask(memo, encoder, [1, 3])
    _ask(memo, encoder, [1, 2], mask=torch.tensor([[1, 1]]))
    _ask(memo, encoder, [1, 2], mask=torch.tensor([[1, 0]]))
    _ask(memo, encoder, [1, 2], output_hidden_states=True)
    memo("text_encoder_2", encoder.forward, torch.tensor([[1, 2]]))
    assert encoder.num_forwards == 6


def test_equal_ids_are_encoded_once_and_a_row_that_changes_its_output_changes_no_other() -> None:
    memo, encoder = Memo(), Encoder()
    for _ in range(3):
        output = _ask(memo, encoder, [5])
        assert isinstance(output, BaseModelOutput)
        assert output.last_hidden_state.unique().tolist() == [5.0]
        output.last_hidden_state.zero_()
    assert encoder.num_forwards == 1


def test_what_was_not_asked_for_longest_is_forgotten_first() -> None:
    encoder = Encoder()
    memo = Memo(max_bytes=2 * 4 * 4)  # two prompts of one token, four floats each
    for ids in ([1], [2], [1], [3]):
        _ask(memo, encoder, ids)
    assert encoder.num_forwards == 3
    _ask(memo, encoder, [1])
    assert encoder.num_forwards == 3
    _ask(memo, encoder, [2])
    assert encoder.num_forwards == 4


def test_an_output_larger_than_the_memory_is_returned_but_not_kept() -> None:
    memo, encoder = Memo(max_bytes=8), Encoder()
    for _ in range(2):
        assert _ask(memo, encoder, [7]).last_hidden_state.shape == (1, 1, 4)
    assert encoder.num_forwards == 2


def test_calls_that_take_or_return_objects_of_their_own_are_not_remembered() -> None:
    memo, encoder, cache = Memo(), Encoder(), object()
    for _ in range(2):
        _ask(memo, encoder, [1], past_key_values=cache)
        output = _ask(memo, encoder, [1], extra={"attentions": cache})
        assert output.attentions is cache
        _ask(memo, encoder, [1], unhashable={1, 2})
    assert encoder.num_forwards == 6


def test_a_recipe_that_wants_gradients_gets_its_own_forward() -> None:
    memo, encoder = Memo(), Encoder()
    _ask(memo, encoder, [1])
    with torch.enable_grad():
        memo("text_encoder", encoder.forward, torch.tensor([[1]]))
    assert encoder.num_forwards == 2
