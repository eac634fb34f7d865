"""Which step caches go with which recipes: some pipelines of diffusers give a cache no place to work."""

from __future__ import annotations

import diffusers
import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.options.step_cache import check_called

WAN, OVER_VIDEOS = diffusers.WanPipeline, diffusers.WanVideoToVideoPipeline


@pytest.mark.parametrize("kind", ["first_block", "taylor_seer", "pyramid", "mag"])
def test_a_cache_is_refused_where_the_recipe_calls_a_pipeline_that_has_no_place_for_it(kind: str) -> None:
    asked = {"type": kind} | ({"mag_ratios": [1.0]} if kind == "mag" else {})
    cache = Options(cache=asked).cache  # type: ignore[arg-type]
    assert cache is not None
    check_called(cache, (WAN,), own=WAN)
    if kind == "mag":  # it counts steps, and goes with every pipeline
        check_called(cache, (WAN, OVER_VIDEOS), own=WAN)
        return
    with pytest.raises(ModelError, match="WanVideoToVideoPipeline, which the recipe calls"):
        check_called(cache, (WAN, OVER_VIDEOS), own=WAN)
