"""Numbers that the original networks computed: where they lie, and how their tensors become our networks."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from framefleet.pipeline.conversion.checkpoint import Checkpoint
from framefleet.pipeline.conversion.convert import write_network
from framefleet.pipeline.conversion.plan import Conversion, Network, Origin, check
from tests.crafter_originals import weight

ROOT = Path(os.environ.get("FRAMEFLEET_GOLDENS") or Path(__file__).parents[2] / "shared" / "goldens")
needed = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no golden files at {ROOT}; FRAMEFLEET_GOLDENS names their folder"
)


def config(name: str) -> Any:
    return json.loads((ROOT / name / "config.json").read_text())


def io(name: str) -> dict[str, Tensor]:
    """Return what went into the original and what came out."""
    return load_file(ROOT / name / "io.safetensors")


def shapes(name: str) -> dict[str, Tensor]:
    """Return the original's tensors by their own names, on the meta device."""
    return {key: tensor.to("meta") for key, tensor in tensors(name).items()}


def tensors(name: str) -> dict[str, Tensor]:
    """Return the original's weights: stored where the rule of names does not give them."""
    extra = ROOT / name / "extra.safetensors"
    stored = load_file(extra) if extra.is_file() else {}
    keys = json.loads((ROOT / name / "keys.json").read_text())
    drawn = {key: weight(key, tuple(shape)) for key, shape in keys.items()}
    return {key.removeprefix("model."): tensor.float() for key, tensor in (drawn | stored).items()}


def converted(
    module_class: Any, arguments: Any, origins: dict[str, Origin], found: dict[str, Tensor], folder: Path
) -> Any:
    """Return the network as `model convert` writes it and `from_pretrained` loads it."""
    with torch.device("meta"):
        module: nn.Module = (
            module_class(**arguments) if isinstance(arguments, dict) else module_class(arguments)
        )
    network = Network(module=module, origins=origins)
    shapes = {name: tensor.to("meta") for name, tensor in found.items()}
    checkpoint = Checkpoint(path=folder, shapes=shapes, read=found.__getitem__)
    used = {origin.name for origin in origins.values()}
    check(
        Conversion(
            variant="golden",
            pipeline=object,
            networks={"network": network},
            others={},
            ignored=frozenset(found) - used,
        ),
        checkpoint,
    )
    write_network(network, checkpoint, folder / "network", None)
    return module_class.from_pretrained(folder / "network").eval()


def full_keys(name: str) -> dict[str, Tensor]:
    """Return the tensors of a full-size original, on the meta device."""
    with gzip.open(ROOT / "fullkeys" / f"{name}.json.gz") as file:
        keys = json.load(file)
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}


def close(mine: Tensor, theirs: Tensor) -> None:
    """Tolerance of one forward: another order of sums."""
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def close_after_steps(mine: Tensor, theirs: Tensor) -> None:
    """Tolerance of a trajectory, relative to its largest value: random weights amplify."""
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 5e-5
