"""Outputs of text encoders as files: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.render.embeddings import embedding_bytes, from_bytes
from framefleet.pipeline.render.fused.calls import bits, digest_of
from framefleet.pipeline.render.tensor_file import METADATA

STATE = torch.arange(24, dtype=torch.float32).reshape(1, 4, 6)
NAME = digest_of(STATE).hex()
OUTPUT = BaseModelOutputWithPooling(
    last_hidden_state=STATE, pooler_output=STATE[:, 0], hidden_states=(STATE, STATE + 1)
)


def _bytes(output: Any, key: str = "k") -> bytes:
    content = embedding_bytes(key, flatten(output))
    assert content is not None
    return content


def _again(output: Any) -> Any:
    leaves, structure = from_bytes("k", _bytes(output))
    return unflatten(structure, leaves)


def _altered(change: dict[str, Any]) -> bytes:
    """A file with a sound digest that this version would never write."""
    content = _bytes(BaseModelOutput(last_hidden_state=STATE))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    body = json.dumps(json.loads(header["__metadata__"][METADATA].partition(" ")[2]) | change)
    noted = f"{hashlib.sha256(body.encode()).hexdigest()} {body}"
    return safetensors.torch.save(safetensors.torch.load(content), {METADATA: noted})


def test_an_output_comes_back_in_its_class_with_all_its_tensors_each_stored_once() -> None:
    again = _again(OUTPUT)
    assert type(again) is BaseModelOutputWithPooling
    assert again.keys() == OUTPUT.keys()
    assert torch.equal(again.pooler_output, OUTPUT.pooler_output)
    for state, expected in zip(again.hidden_states, OUTPUT.hidden_states, strict=True):
        assert torch.equal(state, expected)
    assert len(safetensors.torch.load(_bytes((STATE, STATE.clone())))) == 1
    assert _bytes(OUTPUT) == _bytes(BaseModelOutputWithPooling(**OUTPUT))


@pytest.mark.parametrize(
    "output", [(1, 2.5, "猫", None, True), [1.0, (2,)], {"a": 1, "b": {"c": None}}, "text", 7], ids=repr
)
def test_plain_values_come_back_as_they_were(output: Any) -> None:
    again = _again(output)
    assert again == output and type(again) is type(output)


@pytest.mark.parametrize(
    "tensor",
    [
        *(STATE.bfloat16(), STATE.half(), STATE.transpose(1, 2), STATE[:, ::2], STATE[0, 0, 0], STATE[:0]),
        *(torch.tensor([[True, False]]), torch.tensor([-0.0, torch.nan, torch.inf])),
    ],
    ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}",
)
def test_a_tensor_keeps_its_dtype_its_bits_and_the_strides_of_a_copy(tensor: Tensor) -> None:
    again = _again(tensor)
    assert (again.dtype, again.shape, again.stride()) == (tensor.dtype, tensor.shape, tensor.clone().stride())
    assert torch.equal(bits(again), bits(tensor))


def test_a_single_wrong_bit_is_refused_wherever_it_is_and_so_is_what_was_cut_or_is_anothers() -> None:
    content = _bytes(BaseModelOutput(last_hidden_state=STATE[:, :1]))
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        try:
            leaves, _ = from_bytes("k", bytes(damaged))
        except ValueError:
            continue
        # Only the spaces that safetensors pads its header with may differ.
        assert content[place] == ord(" ") and torch.equal(leaves[0], STATE[:, :1])
    for keep in (0, 5, 60, -1):
        with pytest.raises(ValueError, match="it is not an entry"):
            from_bytes("k", content[:keep])
    with pytest.raises(ValueError, match="it belongs to another call"):
        from_bytes("k", _bytes(OUTPUT, "other"))


@pytest.mark.parametrize(
    "name", ["os.system", "transformers.AutoModel", "transformers_evil.Output", "subprocess.Popen", "set", ""]
)
def test_a_file_cannot_name_what_is_called(name: str) -> None:
    with pytest.raises(ValueError, match="no class"):
        from_bytes("k", _altered({"nesting": [name, ["last_hidden_state"], [None]]}))


@pytest.mark.parametrize(
    "change",
    [
        {"leaves": [{"tensor": "0"}]},
        {"leaves": None},
        {"leaves": []},
        {"nesting": 3},
        {"nesting": ["dict", ["a", "b"], [None]]},
        *(
            {"leaves": [{"tensor": NAME, "strides": s}]}
            for s in ([24, 10**12, 1], [24, -6, 1], [1], ["a"] * 3, [24, 0, 1], [24, 1, 1], [2**64, 6, 1])
        ),
    ],
)
def test_a_sound_digest_over_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        from_bytes("k", _altered(change))


def test_an_output_of_a_class_of_its_own_is_not_kept() -> None:
    class Own(BaseModelOutput):
        pass

    assert embedding_bytes("k", flatten(Own(last_hidden_state=STATE))) is None
    assert embedding_bytes("k", flatten({1: STATE})) is None
    assert embedding_bytes("k", flatten((STATE, float("nan")))) is None
