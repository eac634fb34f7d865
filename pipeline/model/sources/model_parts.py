"""From a model's files to what each component holds, read from the headers of its weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from framefleet.pipeline.model.sources.headers import Tensor, read_header
from framefleet.pipeline.model.sources.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSummary:
    """One component.

    dtypes: of its tensors, the most frequent first; "pickle" where nothing says. size_bytes: of its files.
    """

    name: str
    class_name: str
    dtypes: str
    num_parameters: int
    size_bytes: int


def parts_of(weights: Weights) -> list[ComponentSummary]:
    """Return the components in the order of model_index.json. Reads no tensor."""
    found = []
    for component in weights.components:
        files = [file for file in weights.files if file.partition("/")[0] in component.folders]
        tensors = [
            tensor for file in files if file.endswith(".safetensors") for tensor in _header(weights, file)
        ]
        parameters: Counter[str] = Counter()
        for tensor in tensors:
            parameters[tensor.dtype] += tensor.num_parameters
        dtypes = ", ".join(name.lower() for name, _ in parameters.most_common())
        found.append(
            ComponentSummary(
                name=component.name,
                class_name=component.class_name,
                dtypes=dtypes or ("pickle" if component.has_weights else ""),
                num_parameters=parameters.total(),
                size_bytes=sum(weights.source.files[file].size for file in files),
            )
        )
    return found


def _header(weights: Weights, file: str) -> list[Tensor]:
    source = weights.source
    _, tensors = read_header(lambda count: source.read(file, count), f"{source.name}/{file}")
    return tensors
