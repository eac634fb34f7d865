"""Trains weights on batches: with optimizer, average and loss scale."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.api.errors import JobError
from framefleet.api.models import torch_dtype
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.reports import Step
from framefleet.plugins.train.task import Prepared, TrainingTask
from framefleet.plugins.train.world import (
    SharedLoss,
    World,
    reshard,
    shared_as,
    weights_by_name,
    whole_tensor,
)

OPTIMIZER = "optimizer"


class Average:
    """A running average of each weight. decay: how much of it a step keeps, after many steps."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take in the weights of step `step` (from 0).

        Early steps count more, as in diffusers' EMAModel: otherwise a short run would keep its first weights.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(self._weights[name].detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average where the weights are, until the block ends."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self.values.items():
            weight = self._weights[name]
            current = weight.detach().clone()  # of one weight at a time: a third copy of all might not fit
            weight.copy_(value)
            value.copy_(current)


class Learner:
    """Trains what of a task's components requires gradients. Call `choose` and the like before.

    The weights after a step are a function of those before, the step's number and its rows.
    """

    def __init__(self, task: TrainingTask, settings: TrainSettings, world: World) -> None:
        self._settings, self._world, self._modules = settings, world, dict(task.trained)
        if settings.gradient_checkpointing:
            for name, module in self._modules.items():
                checkpoint_gradients(name, module)
        for module in self._modules.values():
            module.train()
        self._loss = SharedLoss(task, settings.strategy, world)
        weights = weights_by_name(self._modules).items()
        self.weights: dict[str, nn.Parameter] = {name: w for name, w in weights if w.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self.weights.values(),
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
        )
        self._average = Average(self.weights, settings.ema) if settings.ema else None
        # Of a LoRA: where gradients pass frozen weights of fp16, small ones become 0.
        self._scaler = torch.amp.GradScaler(
            world.device.type,
            enabled=settings.precision == "fp16"
            or any(
                weight.dtype == torch.float16
                for module in self._modules.values()
                for weight in module.parameters()
            ),
        )

    def learn(self, step: int, batches: Sequence[Sequence[Prepared]]) -> Step:
        """Change the weights once. batches: one for each forward. Raises JobError where they would be NaN."""
        started = time.perf_counter()
        rate = learning_rate(self._settings, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward(step, batches)
        self._scaler.unscale_(self._optimizer)
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        total_norm = torch.nn.utils.get_total_norm(gradients)
        if (limit := self._settings.max_grad_norm) is not None:
            torch.nn.utils.clip_grads_with_norm_(self.weights.values(), limit, total_norm)
        norm = whole_tensor(total_norm).item()
        # A scaler leaves such steps out by itself and lowers its scale; below 1 that was not the reason.
        if not self._scaler.is_enabled() or self._scaler.get_scale() < 1:
            _check_finite(f"the norm of the gradients of step {step}", norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._average:
            self._average.take(step)
        seconds = time.perf_counter() - started
        return Step(
            step=step,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm if math.isfinite(norm) else None,
            seconds=seconds,
        )

    @contextmanager
    def result(self) -> Iterator[None]:
        """Make the components those to keep and render with, until the block ends.

        Their weights are the average, where there is one.
        """
        modes = {part: part.training for module in self._modules.values() for part in module.modules()}
        with self._average.in_place() if self._average else nullcontext():
            try:
                for part in modes:
                    part.training = False
                yield
            finally:
                for part, mode in modes.items():
                    part.training = mode
            reshard(self._modules.values())

    def _backward(self, step: int, batches: Sequence[Sequence[Prepared]]) -> float:
        """Add up the gradients of all batches; return the mean loss."""
        device, precision = self._world.device, self._settings.precision
        dtype = None if precision == "fp32" else torch_dtype(precision)
        total = torch.zeros((), device=device)
        for micro, batch in enumerate(batches):
            # By its place in the whole step: two workers see what one sees that takes twice the forwards.
            generator = seeded(self._settings.seed, step, micro * self._world.size + self._world.rank)
            with self._loss.syncing(now=micro == len(batches) - 1):
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    loss = self._loss(
                        [{name: value.to(device) for name, value in row.items()} for row in batch], generator
                    ) / len(batches)
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        mean = self._world.mean(total).item()
        _check_finite(f"the loss of step {step}", mean)
        return mean

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all that the next step depends on, whole and on the CPU; every process must call this."""
        for kind, values in self._groups().items():
            for name, value in values.items():
                yield f"{kind}/{name}", whole_tensor(value.detach()).cpu()
        for name, weight in self.weights.items():
            for key, value in self._optimizer.state.get(weight, {}).items():
                yield f"{OPTIMIZER}/{name}/{key}", whole_tensor(value).cpu()

    @torch.no_grad()
    def restore(self, state: Iterable[tuple[str, Tensor]], scale: Mapping[str, Any]) -> None:
        """Take back what `state` yielded, and `scale` returned."""
        tensors, places = self._groups(), {name: place for place, name in enumerate(self.weights)}
        moments: dict[int, dict[str, Tensor]] = {}
        for path, value in state:
            kind, _, name = path.partition("/")
            if kind == OPTIMIZER:
                name, _, key = name.rpartition("/")
                share = value if key == "step" else shared_as(self.weights[name], value)
                moments.setdefault(places[name], {})[key] = share
            else:
                tensors[kind][name].copy_(shared_as(tensors[kind][name], value))
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._scaler.load_state_dict(dict(scale))

    def scale(self) -> dict[str, Any]:
        """Return the loss scale of fp16 as plain numbers; empty for others."""
        return self._scaler.state_dict()

    def _groups(self) -> dict[str, Mapping[str, Tensor]]:
        average = self._average.values if self._average else {}
        # What else changes as it trains, such as the statistics of batch norms.
        return {
            "weights": self.weights,
            "buffers": {
                f"{component}.{name}": buffer
                for component, module in self._modules.items()
                for name, buffer in module.named_buffers()
                if name in module.state_dict()
            },
            "average": average,
        }


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise JobError(
            f"{name} is {value}",
            "with another output, lower train.learning_rate, set train.max_grad_norm, or take "
            "train.precision bf16 or fp32",
        )


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator of these numbers' own, and seed torch's global one, for dropout, likewise."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1
    torch.manual_seed(seed)
    return torch.Generator("cpu").manual_seed(seed)


def checkpoint_gradients(name: str, module: nn.Module) -> None:
    """Let blocks compute again in the backward pass what they did not keep in the forward."""
    # As diffusers calls it, and transformers.
    for method in ("enable_gradient_checkpointing", "gradient_checkpointing_enable"):
        if hasattr(module, method):
            try:
                getattr(module, method)()
            except ValueError:  # diffusers' way to say that this class has none
                break
            return
    raise JobError(
        f"train.gradient_checkpointing is set, but {name} ({type(module).__name__}) has none",
        "leave it out; lower train.batch_size if memory is short",
    )


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Return the rate of step `step` (from 0). It depends on nothing else, so nothing of it is kept."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    shares = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return settings.learning_rate * shares[settings.schedule]
