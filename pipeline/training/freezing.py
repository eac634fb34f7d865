"""Patterns of names of weights in, the weights to train out; all others are frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.training.settings import TrainSettings

_COMPONENTS = {"autoencoder": "vae", "text_encoder": "text_encoder"}


def choose_parameters(
    trained: Mapping[str, nn.Module],
    only: Sequence[str] = (),
    freeze: Sequence[str] = (),
    lora: bool = False,
) -> dict[str, nn.Parameter]:
    """Return the weights to train, by names as `transformer.blocks.0.attn1.to_q.weight`; freeze the others.

    trained: components by name. only, freeze: of the job; see `matching_names`. lora: only adapters.
    """
    named = {
        f"{component}.{name}": weight
        for component, module in trained.items()
        for name, weight in module.named_parameters()
    }
    kept = set(matching_names(named, only=only, freeze=freeze))
    chosen = {name: w for name, w in named.items() if name in kept and (is_lora(name) or not lora)}
    if not chosen:
        raise JobError("train: no weights are left to train", "change `only`, `freeze` or `lora.targets`")
    for name, weight in named.items():
        weight.requires_grad_(name in chosen)
    return chosen


def matching_names(names: Iterable[str], *, only: Sequence[str], freeze: Sequence[str]) -> list[str]:
    """Return the names that a pattern of `only` matches, where there is one, and none of `freeze`.

    A pattern may use * and stands for all below it too. Raises JobError for one that matches nothing.
    """
    names = list(names)
    for setting, patterns in (("only", only), ("freeze", freeze)):
        for pattern in patterns:
            if not any(_matches(name, pattern) for name in names):
                raise JobError(
                    f"train.{setting}: {pattern!r} matches no weight of the model", _nearest(pattern, names)
                )
    return [name for name in names if (not only or matches_any(name, only)) and not matches_any(name, freeze)]


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern stands for a name, or for something above it."""
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Return the names that may be meant: as deep as the pattern, and most like it."""
    wanted = pattern.rstrip(".*")
    depth = wanted.count(".") + 1
    stems = dict.fromkeys(".".join(name.split(".")[:depth]) for name in names)
    found = nearest(wanted, stems, most=3, cutoff=0.0)
    return f"the nearest are {', '.join(found)}"


def is_lora(name: str) -> bool:
    """Whether a weight is an adapter's, as peft names them."""
    return ".lora_" in name


def trained_component(settings: TrainSettings, components: Iterable[str]) -> str:
    """Return which of a pipeline's components is trained. Raises JobError for none, and for two denoisers.

    Their batches are not of the same noise.
    """
    known = list(components)
    if settings.part != "denoiser":
        names = [name for name in known if name == _COMPONENTS[settings.part]]
    else:
        names = sorted(name for name in known if name.startswith(DENOISERS))
    if not names:
        raise JobError(f"train.part is {settings.part}, and the model has none", f"it has {', '.join(known)}")
    chosen = names if len(names) == 1 else [name for name in names if _is_chosen(name, settings)]
    if len(chosen) != 1:
        raise JobError(
            f"train: one job trains one denoiser, and the model has {', '.join(names)}",
            "set `only: [transformer]` for high noise, `only: [transformer_2]` for low; run a job for each",
        )
    return chosen[0]


def _is_chosen(component: str, settings: TrainSettings) -> bool:
    """Whether the patterns leave anything of a component to train."""
    heads = [pattern.partition(".")[0] for pattern in settings.only]
    frozen = [pattern.removesuffix(".*") for pattern in settings.freeze]
    return (not heads or matches_any(component, heads)) and not matches_any(component, frozen)
