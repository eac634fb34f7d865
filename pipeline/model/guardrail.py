"""The guardrail that the license of Cosmos requires: if it refuses, the row fails; what it changes is noted.

Its package checks prompts, and pixelates faces in frames. It downloads its own networks, which are not among
the model's files: a record's environment has its version.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import nn

from framefleet.pipeline.errors import ModelError, RenderError, message_of
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.model.specs.spec import PipelineSpec

log = logging.getLogger(__name__)

COMPONENT = "safety_checker"  # its name in pipelines
CHANGED = "guardrail_changed_frames"  # their number, in records
_SWITCH = "enable_safety_checker"  # in the index of a Cosmos 3; false in folders without it
_INSTALL = "pip install 'framefleet[cosmos]' on every machine"
_OTHER = "change the prompt, or leave the row out"
_ACCESS = (
    "accept the terms of nvidia/Cosmos-1.0-Guardrail on the hub and set HF_TOKEN, or bring that model and "
    "Qwen/Qwen3Guard-Gen-0.6B into the hub's cache of every machine"
)
_changed: ContextVar[list[int] | None] = ContextVar("_changed", default=None)


class Blocked(RenderError):
    """The guardrail refuses a prompt or the frames. It would do so on every worker."""


class Guardrail(nn.Module):
    """The interface that pipelines call. This class accepts everything, for pipelines that render nothing."""

    packages = ("cosmos-guardrail", "torchvision")  # networks of Cosmos resize masks with the second
    dtype = torch.float32
    device = torch.device("cpu")  # the package's own property asks a network that has none (0.3.2)

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def is_guarded(spec: PipelineSpec) -> bool:
    """Return whether the model's calls use the guardrail. The index of a Cosmos 3 may switch it off."""
    is_off = spec.class_name.startswith("Cosmos3") and spec.configs["index"].get(_SWITCH) is False
    return spec.family.is_guarded and not is_off


def check_guardrail(spec: PipelineSpec) -> None:
    """Raise ModelError if the model needs the guardrail and it is not installed."""
    if not is_guarded(spec):
        return
    from diffusers.utils import is_cosmos_guardrail_available

    if not is_cosmos_guardrail_available():
        problem = f"{spec.class_name} renders only with NVIDIA's guardrail, which is not installed"
        raise ModelError(problem, _INSTALL)


def load_guardrail(spec: PipelineSpec) -> Guardrail | None:
    """Return the guardrail of a model that needs it; None for all others."""
    if not is_guarded(spec):
        if spec.family.is_guarded:
            log.warning("the model's folder switches its guardrail off (%s: false)", _SWITCH)
        return None
    check_guardrail(spec)
    try:
        from cosmos_guardrail import CosmosSafetyChecker

        guardrail: Guardrail = _watched(CosmosSafetyChecker)().eval()
    except Exception as error:  # from the hub, or for a missing library
        if is_out_of_memory(error):
            raise
        raise ModelError(f"NVIDIA's guardrail cannot be loaded: {message_of(error)}", _ACCESS) from error
    return guardrail


@contextmanager
def changes_noted() -> Iterator[list[int]]:
    """Yield a list that collects the numbers of frames that the guardrail changes in this row."""
    changed: list[int] = []
    token = _changed.set(changed)
    try:
        yield changed
    finally:
        _changed.reset(token)


def _watched(made: Any) -> Any:
    """Return a subclass of the package's class, which some pipelines check for, that reports what it does."""

    class Watched(Guardrail, made):  # type: ignore[misc]
        """On the device only while it checks, as in pipelines. Rows on several threads may share it."""

        def __init__(self) -> None:
            made.__init__(self)
            self._lock, self._place = threading.Lock(), torch.device("cpu")

        def check_text_safety(self, prompt: str) -> bool:
            if not self._checked(made.check_text_safety, prompt):
                raise Blocked("NVIDIA's guardrail refuses the prompt", _OTHER)
            return True

        def check_video_safety(self, frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            before = frames.copy()  # it writes into them
            checked: np.ndarray[Any, Any] | None = self._checked(made.check_video_safety, frames)
            if checked is None:
                raise Blocked("NVIDIA's guardrail refuses the frames", _OTHER)
            noted, differ = _changed.get(), (checked != before).any(axis=(1, 2, 3))
            if noted is not None:
                noted.append(int(differ.sum()))
            return checked

        def to(self, device: Any = None, dtype: Any = None) -> Watched:  # type: ignore[override]
            """Only note where to check: another row may be using it when a pipeline moves it away."""
            if device is not None and torch.device(device).type != "cpu":
                self._place = torch.device(device)
            return self

        def _checked(self, check: Any, value: Any) -> Any:
            with self._lock:
                made.to(self, self._place)
                try:
                    return check(self, value)
                finally:
                    made.to(self, "cpu")

    return Watched
