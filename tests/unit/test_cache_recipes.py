"""Which step caches go with which recipes: some pipelines of diffusers give a cache no place to work."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.options.step_cache import check_called

WAN, OVER_VIDEOS = diffusers.WanPipeline, diffusers.WanVideoToVideoPipeline


def check(cache: dict[str, Any], *called: type) -> None:
    found = Options(cache=cache).cache  # type: ignore[arg-type]
    assert found is not None
    check_called(found, called, own=WAN)


@pytest.mark.parametrize("kind", ["first_block", "taylor_seer", "pyramid"])
def test_a_cache_is_refused_where_the_recipe_calls_a_pipeline_that_has_no_place_for_it(kind: str) -> None:
    check({"type": kind}, WAN)
    with pytest.raises(ModelError, match="WanVideoToVideoPipeline, which the recipe calls"):
        check({"type": kind}, WAN, OVER_VIDEOS)


def test_a_cache_that_counts_steps_goes_with_every_pipeline() -> None:
    check({"type": "mag", "mag_ratios": [1.0]}, WAN, OVER_VIDEOS)
