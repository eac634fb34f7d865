"""Batch sizes of a real pipeline: found once, begun with by the next renderer, kept apart from others'."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from framefleet.pipeline.render.findings import surroundings
from tests.loras import save_lora
from tests.tiny import SMALLEST, tiny
from tests.unaudited import calls_of

ROWS = 3
EXACT = Batching(max_rows=ROWS, min_gain=1e-9)  # whatever the clock says


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny("wan"), dtype="fp32")


def rendered(model: Model, batching: Batching = EXACT) -> tuple[dict[int, Any], Counter[int], int]:
    """Return frames by seed, forwards by their rows, and how many sizes were remembered."""
    renderer = Renderer(model, batching, audit=Audit(every=0))
    requests = [
        Request(arguments=SMALLEST["wan"] | {"prompt": "a red ball"}, seed=seed) for seed in range(ROWS)
    ]
    with calls_of(model.denoisers(), lambda *_, **named: len(named["hidden_states"])) as forwards:
        clips = [clip for clip in renderer.render(requests) if isinstance(clip, Clip)]
    return {clip.request.seed: clip.frames for clip in clips}, Counter(forwards), renderer.num_remembered


def test_a_second_renderer_searches_nothing_and_its_frames_are_the_same(model: Model) -> None:
    found, searched, none = rendered(model)
    again, begun, some = rendered(model)
    assert (none, some) == (0, 1)
    assert all(np.array_equal(found[seed], again[seed]) for seed in range(ROWS))
    assert {rows for rows in begun if rows > 1} == {ROWS}
    assert sum(searched.values()) > 1.5 * sum(begun.values())


def test_with_remember_off_nothing_is_kept_and_nothing_read(model: Model) -> None:
    rendered(model, Batching(max_rows=2, min_gain=0, remember=False))
    assert not Path(os.environ["FRAMEFLEET_CACHE"], "probes").exists()


def test_whatever_changes_kernels_or_modules_makes_other_surroundings(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = save_lora("wan", "style", tmp_path)

    def loaded(name: str = "wan", **settings: Any) -> str:
        return surroundings(load_model(tiny(name), **{"dtype": "fp32"} | settings), EXACT)

    assert loaded() == surroundings(model, EXACT)
    found = {loaded(), loaded(dtype="bf16"), loaded(loras={"style": str(lora)}), loaded(attention="native")}
    found |= {loaded("wan_known"), surroundings(model, Batching(mode="fast"))}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    found.add(surroundings(model, EXACT))
    threads = torch.get_num_threads()
    try:
        found.add(loaded(threads=2))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 8


def test_what_torch_sets_on_its_way_changes_no_surroundings(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what one worker found, and rows that it gave back, would be nothing to another that has not yet."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    before = surroundings(model, EXACT)
    cache_dir()
    assert "TORCHINDUCTOR_CACHE_DIR" in os.environ
    assert surroundings(model, EXACT) == before
