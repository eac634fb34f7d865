"""Folders that earlier versions converted still load.

references/converted.json: their configs, and the SHA-256 over the names and shapes of their weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from framefleet import load_model
from tests.crafter import crafter
from tests.tiny import tiny

REFERENCES = Path(__file__).parents[2] / "references"
CONVERTED: dict[str, dict[str, Any]] = json.loads((REFERENCES / "converted.json").read_text("utf-8"))
# Where the ports were then, as these folders name their modules, and are now.
THEN, NOW = "framefleet.pipeline.models.", "framefleet.plugins.ports."
VERSIONS = {"_diffusers_version", "transformers_version", "_name_or_path"}


@pytest.mark.parametrize("variant", list(CONVERTED))
def test_a_folder_that_the_former_version_converted_loads(variant: str, tmp_path: Path) -> None:
    now = Path(tiny("opensora_dc")) if variant.startswith("open-sora") else crafter(variant)
    shutil.copytree(now, tmp_path / "model")
    for name, stored in CONVERTED[variant].items():
        file = tmp_path / "model" / name
        if file.suffix == ".safetensors":
            assert names_and_shapes(file) == stored, name
        else:
            config = file.read_text("utf-8").replace(NOW, THEN)
            assert without_versions(json.loads(config)) == stored, name
            file.write_text(json.dumps(stored), encoding="utf-8")
    model = load_model(tmp_path / "model", dtype="fp32")
    assert type(model.pipe).__name__ == CONVERTED[variant]["model_index.json"]["_class_name"]


def without_versions(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in VERSIONS}


def names_and_shapes(file: Path) -> str:
    with safe_open(file, "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
