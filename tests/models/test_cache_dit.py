"""cache-dit as a step cache: rows are plain calls with it switched on by hand. Skipped without it."""

from __future__ import annotations

from typing import Any

import pytest

from framefleet import ModelError, Request, load_model
from tests.options import digest, plain, rendered, requests
from tests.tiny import tiny

cache_dit = pytest.importorskip("cache_dit")
# As soon as it may, and whatever the first block says: so that steps are skipped at all.
SETTINGS: dict[str, Any] = {"Fn_compute_blocks": 1, "max_warmup_steps": 2, "residual_diff_threshold": 9.0}
CACHE = {"type": "cache_dit", **SETTINGS}
LARGER = {"height": 32, "width": 32}


def by_hand(pipe: Any, request: Request) -> str:
    """Return the digest of a call with a new cache on each denoiser."""
    steps = request.arguments["num_inference_steps"]
    networks = [part for name, part in pipe.components.items() if name.startswith("transformer") and part]
    for network in networks:
        config = cache_dit.DBCacheConfig(num_inference_steps=steps, **SETTINGS)
        cache_dit.enable_cache(network, cache_config=config)
    try:
        return digest(pipe, request)
    finally:
        for network in networks:
            cache_dit.disable_cache(network)


@pytest.mark.parametrize(
    ("name", "more"), [("wan", {}), ("wan_moe", {}), ("cogvideox", {}), ("flux", LARGER)]
)
def test_rows_are_those_of_plain_calls_with_the_cache_set_by_hand(name: str, more: dict[str, Any]) -> None:
    rows = requests(name, **more)
    model = load_model(tiny(name), dtype="fp32", cache=CACHE)
    clips = rendered(model, rows)
    bare, cached = plain(name), plain(name)
    assert [clip.frames_sha256 for clip in clips] == [by_hand(cached, clip.request) for clip in clips]
    assert any(clip.frames_sha256 != digest(bare, clip.request) for clip in clips)
    assert all(clip.batch_size == 1 for clip in clips)
    row = clips[0].request
    assert digest(model.pipe, row) == digest(bare, row)  # nothing of it is left
    assert model.settings.numerics("exact")["cache"] == CACHE


@pytest.mark.parametrize(
    ("name", "cache", "said"),
    [
        ("wan", {"Fn_compute_block": 1}, "takes no 'Fn_compute_block'"),
        ("wan", {"num_inference_steps": 4}, "takes no 'num_inference_steps'"),
        ("wan", {"residual_diff_threshold": "high"}, "residual_diff_threshold is 'high'"),
        ("sd", {}, "does not fit UNet2DConditionModel"),
    ],
)
def test_what_it_does_not_take_is_refused_before_a_model_is_loaded(
    name: str, cache: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(tiny(name), cache={"type": "cache_dit", **cache})
