"""From a pipeline folder's configs to the pipeline without weights, which shows what fits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from framefleet.pipeline.sources.components import class_of, parse_index
from framefleet.pipeline.sources.selection import INDEX
from framefleet.pipeline.specs.spec import PipelineSpec


def blank_pipeline(folder: Path, spec: PipelineSpec) -> Any:
    """Return the pipeline with every parameter on the meta device; tokenizers and scheduler are real.

    folder: holds the configs; weights in it are not opened.
    """
    index = parse_index((folder / INDEX).read_bytes(), str(folder / INDEX))
    networks = {}
    for name in spec.components:
        component = class_of(*index[name])
        if component is not None and issubclass(component, nn.Module):
            networks[name] = _blank(component, folder / name)
    return spec.pipeline_class.from_pretrained(folder, local_files_only=True, **networks)


def _blank(component: Any, folder: Path) -> nn.Module:
    if hasattr(component, "from_config") and hasattr(component, "load_config"):  # of diffusers
        config = component.load_config(folder)
        with init_empty_weights():
            network: nn.Module = component.from_config(config)
        return network
    config = component.config_class.from_pretrained(folder)
    with init_empty_weights():
        network = component(config)
    return network
