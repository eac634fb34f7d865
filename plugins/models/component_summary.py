"""From the headers of a model's files to what each of its components holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

from framefleet.pipeline.model.sources.headers import read_header
from framefleet.pipeline.model.sources.selection import SAFETENSORS
from framefleet.pipeline.model.sources.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSummary:
    """One component."""

    name: str
    class_name: str
    dtypes: str  # of its tensors, the most frequent first; "pickle" where nothing says
    num_parameters: int
    size_bytes: int  # of its files


def parts_of(weights: Weights) -> list[ComponentSummary]:
    """Return the components in the order of model_index.json. Reads no tensor."""
    summaries = []
    for component in weights.components:
        files = [file for file in weights.files if file.partition("/")[0] in component.folders]
        parameters: Counter[str] = Counter()
        for file in files:
            if file.endswith(SAFETENSORS):
                read = partial(weights.source.read, file)
                for tensor in read_header(read, f"{weights.source.name}/{file}")[1]:
                    parameters[tensor.dtype] += tensor.num_parameters
        dtypes = ", ".join(name.lower() for name, _ in parameters.most_common())
        summaries.append(
            ComponentSummary(
                name=component.name,
                class_name=component.class_name,
                dtypes=dtypes or ("pickle" if component.has_weights else ""),
                num_parameters=parameters.total(),
                size_bytes=sum(weights.source.files[file].size for file in files),
            )
        )
    return summaries
