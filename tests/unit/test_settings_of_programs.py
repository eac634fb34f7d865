"""What a program says as a mapping is taken as settings of a model."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.ip_adapter import ip_adapter_of


def test_any_mapping_is_taken_and_a_value_of_another_kind_refused_by_its_place() -> None:
    values = {"path": "adapter", "weights": "ip.safetensors", "image_encoder": "encoder"}
    assert ip_adapter_of(MappingProxyType(values)) == ip_adapter_of(values)
    with pytest.raises(ModelError, match=r"ip_adapter\.scale is 'much', and must be"):
        ip_adapter_of(values | {"scale": "much"})
