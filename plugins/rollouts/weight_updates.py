"""Replaces the weights of a loaded model's denoisers, in place, with those of files in an output."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from framefleet.api.errors import ModelError
from framefleet.api.models import Model, ModelSettings, is_denoiser, model_digest
from framefleet.api.outputs import Store
from framefleet.api.texts import canonical_json
from framefleet.jobs.job.model import OpenedModel
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.outputs.layout import WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightUpdate:
    """All weights of a component. files: paths in the output, each named by its SHA-256."""

    component: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WeightUpdates:
    """All updates of a model since it was loaded: a `ModelUpdate`."""

    parts: tuple[WeightUpdate, ...]

    @property
    def components(self) -> frozenset[str]:
        return frozenset(part.component for part in self.parts)

    def apply(self, model: Model, store: Store) -> Model:
        """Load the new weights into the model's networks; return the model. Raises ModelError.

        store: of the output that has them.
        """
        applied = model.update.parts if isinstance(model.update, WeightUpdates) else ()
        for update in self.parts:
            if update not in applied:
                with _fetched(store, update.files) as files:
                    import torch

                    networks = model.denoisers()
                    _check_updatable(update.component, networks, model.settings)
                    current = networks[update.component].state_dict()  # which shares memory with the weights
                    with torch.no_grad():
                        for name, file in _opened(update.component, current, files).items():
                            current[name].copy_(file.get_tensor(name))
        digest = updated_digest(model_digest(model.digests), self.parts)
        return replace(model, update=self, digest=digest)


def updated_digest(base: str, updates: Sequence[WeightUpdate]) -> str:
    """Return the digest of a model with other weights. base: of its files."""
    if not updates:
        return base
    content = [base, sorted((update.component, sorted(update.files)) for update in updates)]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def store_weights(
    store: Store,
    component: str,
    weights: Mapping[str, Any] | str | Path,
    *,
    fits: Callable[[Sequence[Path]], object] = lambda files: None,
) -> WeightUpdate:
    """Put weights into an output. weights: a state dict; a .safetensors file, or a folder of some.

    fits: called first with their files; raises for those that must not be stored.
    """
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        if isinstance(weights, Mapping):
            from safetensors.torch import save_file

            own = {name: _own_copy(component, name, weight) for name, weight in weights.items()}
            save_file(own, file := Path(folder, "weights.safetensors"))
            files = [file]
        elif isinstance(weights, str | Path):
            source = Path(weights)
            files = sorted(source.glob("*.safetensors")) if source.is_dir() else [source]
        else:
            files = []
        if not files or not all(file.is_file() for file in files):
            place = weights if isinstance(weights, str | Path) else f"a {type(weights).__name__}"
            problem = f"the new weights of {component}: {place} has no .safetensors files"
            raise ModelError(problem, "use a file, a folder, or a state dict")
        fits(files)
        paths = {f"{WEIGHTS}/{sha256_of(file)}.safetensors": file for file in files}
        for path, file in paths.items():
            if not store.exists(path):
                store.upload(path, file)
        return WeightUpdate(component=component, files=tuple(paths))


def _own_copy(component: str, name: object, weight: Any) -> Any:
    import torch

    if not isinstance(name, str) or not torch.is_tensor(weight):
        problem = f"the new weights of {component}: {name!r} is a {type(weight).__name__}, not a tensor"
        raise ModelError(problem, "use the network's state_dict()")
    if weight.is_meta or weight.layout != torch.strided:
        problem = f"the new weights of {component}: {name} is on the device meta, or sparse"
        raise ModelError(problem, "move it to a device, as a dense tensor")
    return weight.detach().cpu().clone().contiguous()


def check_update(component: str, model: OpenedModel) -> Callable[[Sequence[Path]], object]:
    """Return what checks that files hold all weights of a component; raise ModelError if none can do."""
    import torch

    components = model.weights.components
    networks = {one.name: one for one in components if one.has_weights and is_denoiser(one.name)}
    _check_updatable(component, networks, model.settings, packed=model.packed)
    owner = class_of(networks[component].library, networks[component].class_name)
    with torch.device("meta"):
        network = owner.from_config(owner.load_config(str(model.configs / component)))
    return partial(_opened, component, network.state_dict())


@contextmanager
def _fetched(store: Store, paths: Sequence[str]) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        files = []
        for path in paths:
            store.download(path, file := Path(folder, Path(path).name))
            if sha256_of(file) != file.stem:
                raise ModelError(f"{store.url_of(path)} has changed", "update the weights again")
            files.append(file)
        yield files


def _opened(component: str, known: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """Return the file of each weight. known: the network's own. Raises ModelError where others are there."""
    from safetensors import SafetensorError, safe_open

    entries = dict[str, tuple[Any, list[int], str]]()
    try:
        for file in (safe_open(path, framework="pt") for path in files):
            for name in file.keys():  # noqa: SIM118
                weight = file.get_slice(name)
                entries[name] = (file, weight.get_shape(), weight.get_dtype())
    except SafetensorError as error:
        raise ModelError(
            f"the new weights of {component} are no safetensors file: {error}", "write them again"
        ) from error
    for name in sorted(known.keys() ^ entries.keys()):
        lacks = "have no" if name in known else "have a weight that it does not know,"
        raise ModelError(f"the new weights of {component} {lacks} {name}", "use its whole state_dict()")
    for name, (_, shape, dtype) in entries.items():
        own = known[name]
        if list(own.shape) != shape or own.is_floating_point() != dtype.startswith(("F", "BF")):
            is_shape = list(own.shape) != shape
            differs = (
                f"has the shape {shape}, not {list(own.shape)}"
                if is_shape
                else f"is {dtype}, not {own.dtype}"
            )
            raise ModelError(
                f"the new weights of {component}: {name} {differs}", "use weights of the same network"
            )
    return {name: file for name, (file, *_) in entries.items()}


def _check_updatable(
    component: str, networks: Collection[str], settings: ModelSettings, *, packed: Collection[str] = ()
) -> None:
    """packed: components whose files hold packed weights."""
    if component not in networks:
        names = ", ".join(networks)
        raise ModelError(f"weights of {component!r} cannot be updated", f"name one of {names}")
    options = settings.options
    if options.quantization or options.offload or options.layerwise_casting or options.fuse_qkv:
        raise ModelError(
            f"weights of {component} cannot be updated in place: they are quantized, offloaded or joined",
            "leave these options out of `model`",
        )
    if settings.loras or settings.ip_adapter:
        key, advice = (
            ("loras", ", and merge them into the weights") if settings.loras else ("model.ip_adapter", "")
        )
        problem = f"weights of {component} cannot be updated if `{key}` adds others to its network"
        raise ModelError(problem, f"leave `{key}` out{advice}")
    if component in packed:
        problem = f"weights of {component} cannot be updated in place: its files hold packed weights"
        raise ModelError(problem, "use a model with plain weights")
