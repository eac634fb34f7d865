"""Weights that wait in host memory. `meta` stands for the GPU: what runs there has shapes, and no values."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet.pipeline.render.text_encoders import Parked, is_on_gpu


class Encoder(nn.Module):
    """Two embeddings that share a weight, and a buffer."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(8, 4)
        self.second = nn.Embedding(8, 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(4))

    def forward(self, ids: Tensor, *, mask: Tensor | None = None, name: str = "") -> dict[str, Any]:
        assert mask is None or mask.device == ids.device
        return {"state": (self.first(ids) + self.second(ids)) * self.scale, "name": name}

    def devices(self) -> set[str]:
        return {weight.device.type for weight in [*self.parameters(), *self.buffers()]}


@pytest.fixture
def encoder() -> Encoder:
    with torch.random.fork_rng():
        return Encoder().eval()


@pytest.fixture
def parked(encoder: Encoder) -> Parked:
    found = Parked({"text_encoder": encoder}, "meta")
    found.leave()
    return found


IDS = torch.tensor([[1, 2]])


def test_weights_are_on_the_device_from_a_call_until_they_leave(encoder: Encoder, parked: Parked) -> None:
    assert encoder.devices() == {"cpu"}
    parked.run("text_encoder", encoder.forward, IDS)
    assert encoder.devices() == {"meta"}
    parked.leave()
    assert encoder.devices() == {"cpu"}
    parked.bring()
    assert encoder.devices() == {"meta"}


def test_the_tensors_of_a_call_go_where_the_weights_are(encoder: Encoder, parked: Parked) -> None:
    output = parked.run("text_encoder", encoder.forward, IDS, mask=IDS, name="猫")
    assert (output["state"].device.type, output["name"]) == ("meta", "猫")


def test_values_parameters_and_shared_weights_are_the_same_afterwards(
    encoder: Encoder, parked: Parked
) -> None:
    with torch.no_grad():
        before, weight = encoder(IDS)["state"], encoder.first.weight
        for _ in range(3):
            parked.run("text_encoder", encoder.forward, IDS)
            assert encoder.first.weight is encoder.second.weight is weight
            parked.leave()
        assert torch.equal(encoder(IDS)["state"], before)
    assert isinstance(weight, nn.Parameter) and weight.requires_grad


def test_the_log_says_how_many_bytes_were_freed(
    encoder: Encoder, parked: Parked, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="framefleet.pipeline.render.text_encoders"):
        parked.run("text_encoder", encoder.forward, IDS)
        parked.leave()
        parked.leave()
    assert caplog.messages == ["text_encoder left meta and freed 144 bytes"]  # 8 * 4 + 4 floats


def test_a_module_that_is_not_parked_is_called_as_it_is(encoder: Encoder) -> None:
    parked = Parked({}, "meta")
    output = parked.run("text_encoder", encoder.forward, IDS)
    parked.leave()
    assert output["state"].device.type == "cpu"


def test_modules_of_a_cpu_are_not_parked(encoder: Encoder) -> None:
    assert not is_on_gpu(encoder)
    assert is_on_gpu(encoder.to("meta"))
