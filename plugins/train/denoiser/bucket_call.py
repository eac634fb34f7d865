"""Joins a denoiser's call for a batch from what all rows of a bucket share and each row's own part.

The shared part is the call for a black clip without a prompt. A row keeps only what differs from it. So
rotary tables, masks and the empty prompt exist once, and any process can compute the shared part again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.api.errors import FarEnough, TableError
from framefleet.pipeline.hooks.global_draws import drawing_from
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.render.fused.calls import Call, parse_call
from framefleet.plugins.train.task import Prepared

_OWN, _EMPTY = "call.", "empty."  # a leaf of the row's call, and of that call with its prompt dropped
# Of all tokens and of no row, though there be a single token.
_POSITIONS = ("image_rotary_emb", "img_ids", "txt_ids")


class BucketCall:
    """A call whose first leaf, the noisy latents, and whose timestep are to be replaced."""

    def __init__(self, call: Call, scheduler: Any, denoiser: nn.Module, *, is_fractional: bool) -> None:
        """call, scheduler: as `capture` returns them. is_fractional: timesteps are never rounded."""
        self.call = call
        args, kwargs = unflatten(call.structure, list(range(len(call.leaves))))
        bound = inspect.signature(type(denoiser).forward).bind(denoiser, *args, **kwargs).arguments
        owners = {number: name for name, value in bound.items() for number in flatten(value)[0]}
        # The parameters of `forward` that the leaves belong to, and the leaf that is the timestep.
        self.names = tuple(owners[number] for number in range(len(call.leaves)))
        self.timestep = self.names.index("timestep")
        timesteps = scheduler.timesteps
        first, seen = (float(t.max()) for t in (timesteps, call.leaves[self.timestep]))
        self.unit = round(first / seen)  # timesteps of the scheduler in one of the denoiser's
        # Whether they are rounded down to whole numbers, as the scheduler does.
        self.is_whole = not timesteps.is_floating_point() and not is_fractional
        patch = getattr(denoiser.config, "patch_size", 1)  # (T, H, W) of a token, in latents
        self.patch = tuple(patch) if isinstance(patch, list | tuple) else (1, patch, patch)

    def row(self, call: Call, empty: Call, latents: Tensor, *, index: int) -> Prepared:
        """Return what is the row's own. call, empty: with its prompt, and without; index: for errors."""
        own, dropped, shared = (self._leaves(c, latents, index) for c in (call, empty, self.call))
        mask = self.clean_mask(latents)
        own_latents = (
            latents if mask is None else torch.where(mask, call.leaves[0].to(latents.dtype), latents)
        )
        prepared = {"latents": own_latents.cpu()}
        for i, (value, without, common) in enumerate(zip(own, dropped, shared, strict=True)):
            if i == self.timestep:
                continue
            if not _equal(value, common):
                prepared[f"{_OWN}{i}"] = _stored(value, index)
            if not _equal(value, without):
                is_common = _equal(without, common)
                prepared[f"{_EMPTY}{i}"] = torch.empty(0) if is_common else _stored(without, index)
        return prepared

    def clean_mask(self, latents: Tensor) -> Tensor | None:
        """Return where the clip is given and takes no noise, as a mask that broadcasts to latents (B, ...).

        Pipelines that hold frames say so by timesteps of 0 for their tokens (Wan 2.2 TI2V, LTX).
        """
        is_clean: Tensor = self.call.leaves[self.timestep] == 0
        if is_clean.dim() < 2 or not is_clean.any():
            return None
        if latents.dim() == 3:  # tokens
            return is_clean[..., None]
        sides = [size // patch for size, patch in zip(latents.shape[2:], self.patch, strict=True)]
        mask = is_clean.view(1, 1, *sides)
        for dim, patch in enumerate(self.patch, start=2):
            mask = mask.repeat_interleave(patch, dim)
        return mask

    def arguments(
        self, rows: Sequence[Prepared], dropped: Sequence[bool], sample: Tensor, timesteps: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of one forward. dropped: whose prompt is; the others: as `Noised` has them."""
        leaves = []
        for i, common in enumerate(self._leaves(self.call, sample)):
            values = [_value(row, i, common, is_dropped=d) for row, d in zip(rows, dropped, strict=True)]
            leaves.append(_join(self.names[i], values, sample.device))
        first: Tensor = self.call.leaves[0]
        behind = leaves[0]
        if behind is not None:
            wider = next(d for d in range(1, sample.dim()) if sample.shape[d] != first.shape[d])
            sample = torch.cat([sample, behind.to(sample.dtype)], dim=wider)
        leaves[0] = sample.to(first.dtype)
        leaves[self.timestep] = self._times(timesteps)
        args, kwargs = unflatten(self.call.structure, leaves)
        return args, kwargs

    def _times(self, timesteps: Tensor) -> Tensor:
        """Return the scheduler's timesteps (B) as the denoiser gets them."""
        seen: Tensor = self.call.leaves[self.timestep]
        if self.is_whole:  # before the cast: Wan 2.2 TI2V's denoiser gets whole numbers as floats
            timesteps = timesteps.trunc()
        keeps_dtype = self.is_whole or seen.is_floating_point()
        times = timesteps.to(seen.device, seen.dtype if keeps_dtype else timesteps.dtype)
        if self.unit != 1:
            times = times / self.unit
        if seen.dim() < 2:
            return times
        return times[:, None] * (seen != 0)

    def _leaves(self, call: Call, latents: Tensor, index: int | None = None) -> list[Any]:
        """Return a call's leaves with only what stands behind the latents in the first place, or None."""
        if call.structure != self.call.structure:
            raise TableError(
                f"row {index}: its arguments make the pipeline call the denoiser differently",
                "leave out the columns that other rows do not have",
            )
        first: Tensor = call.leaves[0]
        wider = [d for d in range(1, first.dim()) if latents.shape[d] != first.shape[d]]
        fits = first.dim() == latents.dim() and all(latents.shape[d] < first.shape[d] for d in wider)
        if not fits or len(wider) > 1:
            raise TableError(
                f"row {index}: the denoiser takes {tuple(first.shape)}, but the latents of its video "
                f"are {tuple(latents.shape)}",
                "choose train.sizes that the model renders",
            )
        behind = None
        for d in wider:
            behind = first.narrow(d, latents.shape[d], first.shape[d] - latents.shape[d])
        return [behind, *call.leaves[1:]]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _stored(value: Any, index: int) -> Tensor:
    """Return a leaf as a file of tensors can hold it."""
    if isinstance(value, Tensor):
        return value.cpu().contiguous()
    if isinstance(value, bool | int | float):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    raise TableError(
        f"row {index}: the pipeline calls the denoiser with {value!r} for it, which cannot be kept",
        "leave out the columns that other rows do not have",
    )


def _value(row: Prepared, i: int, common: Any, *, is_dropped: bool) -> Any:
    stored = row.get(f"{_OWN}{i}")
    if is_dropped and f"{_EMPTY}{i}" in row:
        stored = row[f"{_EMPTY}{i}"]
        stored = stored if stored.numel() else None
    if stored is None:
        return common
    return stored.item() if stored.dim() == 0 and not isinstance(common, Tensor) else stored


def _join(name: str, values: Sequence[Any], device: torch.device) -> Any:
    """Return one leaf for all rows: what each brings, or what all of them share."""
    first = values[0]
    may_have_batch = isinstance(first, Tensor) and first.dim() > 0 and name not in _POSITIONS
    # A batch of one for each row, or AnimateDiff's text, there once for each frame.
    if may_have_batch and (first.shape[0] == 1 or name == "encoder_hidden_states"):
        return torch.cat([value.to(device) for value in values])
    if not all(_equal(first, value) for value in values[1:]):
        raise TableError(
            f"rows of one size have different values of `{name}`, but a batch can have only one",
            "set train.batch_size to 1, or give these rows the same arguments except the prompt",
        )
    return first.to(device) if isinstance(first, Tensor) else first


class _Reached(FarEnough):
    """Leaves a pipeline's `__call__`; no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, call: Call) -> None:
        self.call = call


@torch.no_grad()
def capture(
    pipe: Any, arguments: Mapping[str, Any], *, denoisers: Mapping[str, Any], seed: int
) -> tuple[Call, Any]:
    """Run `pipe` up to the first forward of one of its `denoisers`, and leave it there.

    Returns this call, and the noise scheduler as the pipeline has set it for its steps.
    arguments: of the pipeline's call; seed: of what it draws. Of a call that joins both prompts of guidance,
    the first half is returned: without the prompt. Nothing stays on pipeline or modules.
    """
    own = OwnPipelines(pipe).make()
    own.set_progress_bar_config(disable=True)
    try:
        # Without the casts of a training step: it must be the same call wherever it is made.
        with (
            intercept(denoisers, _reach),
            torch.autocast(pipe.device.type, enabled=False),
            drawing_from(seed),
        ):
            own(**arguments, generator=torch.Generator("cpu").manual_seed(seed))
    except _Reached as reached:
        return reached.call, own.scheduler
    raise AssertionError(f"{type(pipe).__name__} ended without a call of {', '.join(denoisers)}")


def _reach(name: str, _: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call = parse_call(name, args, kwargs)
    leaves, structure = flatten((args, kwargs))
    own = [
        leaf[:1] if isinstance(leaf, Tensor) and (leaf.dim() > 0 and leaf.shape[0] == call.batch) else leaf
        for leaf in leaves
    ]
    raise _Reached(replace(call, leaves=own, structure=structure, given=None, batch=1))
