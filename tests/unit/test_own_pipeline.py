"""A copy of a pipeline: what keeps state is its own, networks and constants are shared."""

from __future__ import annotations

import copy
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from framefleet.pipeline.model.own_pipeline import OwnPipelines, own_settings
from tests.tinies.encoders import clip_tokenizer


class Pipe:
    def __init__(self) -> None:
        self.unet = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.scheduler = DDIMScheduler()
        self.tokenizer = clip_tokenizer()
        self.seen: list[Any] = []
        self.guider = SimpleNamespace(momentum=torch.zeros(2), scheduler=self.scheduler, parts=[self.unet[0]])
        self.guider.weights = {"first": self.unet[0].weight, "mean": self.unet[1].running_mean}
        self.guider.module = copy
        self.guider.pipe = self


def test_what_keeps_state_is_the_copys_own() -> None:
    pipe = Pipe()
    own = OwnPipelines(pipe).make()
    own.seen.append(1)
    own.guider.momentum += 1
    own.scheduler.set_timesteps(3)
    assert pipe.seen == []
    assert pipe.guider.momentum.sum() == 0
    assert pipe.scheduler.num_inference_steps is None


def test_networks_and_tokenizers_are_shared_wherever_they_are(caplog: pytest.LogCaptureFixture) -> None:
    pipe, given = Pipe(), DDIMScheduler()
    own = OwnPipelines(pipe).make(scheduler=given)
    assert (own.unet, own.tokenizer, own.guider.module) == (pipe.unet, pipe.tokenizer, copy)
    assert own.guider.parts == [pipe.unet[0]]
    assert own.guider.weights["first"] is pipe.unet[0].weight
    assert own.guider.weights["mean"] is pipe.unet[1].running_mean
    assert own.guider.pipe is own, "what is held twice is one in the copy too"
    assert own.guider.scheduler is own.scheduler is given
    assert not caplog.records


def test_tokenizers_with_settings_of_their_own_know_the_same_words() -> None:
    pipe = SimpleNamespace(components={"tokenizer": clip_tokenizer(), "unet": nn.Linear(2, 2)})
    [(name, own)] = own_settings(pipe).items()
    own.padding_side = "left"
    assert pipe.components[name].padding_side == "right"
    pipe.components[name].add_tokens(["zorp"])
    assert len(own) == len(pipe.components[name])


def test_what_cannot_be_copied_is_shared_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pipe = Pipe()
    pipe.guider.lock = threading.Lock()
    with caplog.at_level(logging.WARNING):
        pipelines = OwnPipelines(pipe)
        first, second = pipelines.make(), pipelines.make()
    assert first.guider.lock is second.guider.lock is pipe.guider.lock
    assert first.guider.momentum is not second.guider.momentum
    assert [record.getMessage() for record in caplog.records] == [
        "Pipe has objects that cannot be copied, so rows share them: lock"
    ]


def test_an_object_that_refuses_to_be_copied_is_shared_whole(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing:
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("not me")

    pipe = Pipe()
    pipe.guider.refusing = Refusing()
    assert OwnPipelines(pipe).make().guider is pipe.guider
    assert "SimpleNamespace" in caplog.text


def test_what_lacks_memory_for_a_copy_is_not_shared() -> None:
    class Momentum:
        lacks_memory = False

        def __deepcopy__(self, memo: Any) -> Any:
            if self.lacks_memory:
                raise MemoryError
            return Momentum()

    pipe = Pipe()
    pipe.guider.momentum = Momentum()
    pipelines = OwnPipelines(pipe)
    pipelines.make()
    Momentum.lacks_memory = True
    with pytest.raises(MemoryError):
        pipelines.make()
    Momentum.lacks_memory = False
    assert pipelines.make().guider.momentum is not pipe.guider.momentum
