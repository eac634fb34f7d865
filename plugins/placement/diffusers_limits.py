"""What diffusers 0.42 cannot do with the kernels that framefleet uses. Sums would have another order, too."""

from __future__ import annotations

from typing import ClassVar

from framefleet.pipeline.model.device_placement import Placer


class RingAttention(Placer):
    """Each device has a part of the keys and values; parts are added up by their log-sum-exp."""

    refusal: ClassVar[str] = (
        "it adds parts by their log-sum-exp, which the native attention of diffusers 0.42 does not return"
    )


class TensorParallel(Placer):
    """Each device has a part of each product's weights."""

    refusal: ClassVar[str] = (
        "the tensor parallelism of diffusers 0.42 refuses CPUs, so it could not be tested"
    )
