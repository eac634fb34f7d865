"""There is one plain call: audits, replay, verify, the script and unbatched rows all give its frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet import (
    Audit,
    Batching,
    Given,
    Model,
    Renderer,
    Request,
    load_model,
    replay,
    replay_script,
    verify,
)
from framefleet.pipeline.recipes.catalog import BUILT_IN, find_recipe
from framefleet.plugins.keep.replay.recorded_row import NOTHING
from tests.here import render_here, run_script
from tests.jobs import job_values, write_table
from tests.long import long_but
from tests.odd_recipes import ALONE
from tests.tiny import OPTIONS, SMALLEST, tiny
from tests.unaudited import clips_in_order

PIPELINES = (
    *("wan", "wan_moe", "skyreels", "cogvideox", "mochi", "latte", "ltx", "hunyuan", "kandinsky", "lcm"),
    *("animatediff", "modelscope", "sd", "sdxl", "sd3", "flux", "flux2", "chroma", "aura_flow", "cogview4"),
    *("lumina2", "hidream", "sana", "qwen_image", "z_image", "hunyuan_image", "ltx2", "wan_modular"),
    *("sd_pag", "pixart_sigma", "hunyuan_1_5", "kandinsky_6", "cosmos3", "sana_video", "helios", "allegro"),
    *("opensora_dc", "anyflow", "qwen_2_1", "flux2_klein", "glm_image", "ernie", "krea2", "sana_sprint"),
)
Digests = dict[int, tuple[str, str | None]]  # of frames and sound, by the row's seed


def _rendered(model: Model, recipe: str, requests: list[Request], max_rows: int) -> tuple[Renderer, Digests]:
    own = {} if recipe in BUILT_IN else {recipe: find_recipe(recipe)}
    renderer = Renderer(model, Batching(max_rows=max_rows, min_gain=0), recipes=own, audit=Audit(every=1))
    clips = clips_in_order(renderer, requests)
    return renderer, {clip.request.seed: (clip.frames_sha256, clip.audio_sha256) for clip in clips}


def _check(name: str, recipe: str, folder: Path) -> None:
    odd = {} if recipe == "generate" else {"odd": 0.3}
    rows = [{"prompt": "a red ball", "seed": seed, **odd} for seed in (3, 5)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", recipe=recipe)
    values |= {
        "model": {"path": str(tiny(name)), "dtype": "fp32", **OPTIONS.get(name, {})},
        "media": {"format": "mkv"},
        "defaults": SMALLEST[name],
        "batching": {"max_rows": 2, "min_gain": 0},
    }
    output, row_ids = render_here(values, is_mixed=True)
    given = NOTHING if recipe in BUILT_IN else Given(recipe=recipe)
    verified = verify(output, row_ids=row_ids, given=given).rows
    assert {row.compared.verdict for row in verified} == {"bit-exact"}
    recorded = {row.record.seed: (row.record.frames_sha256, row.record.audio_sha256) for row in verified}
    assert replay(output, row_ids[0], given).is_equal
    if recipe == "generate":
        assert run_script(replay_script(output, row_ids[0])).startswith("the same ")

    model = load_model(tiny(name), dtype="fp32", **OPTIONS.get(name, {}))
    arguments = {**SMALLEST[name], "prompt": "a red ball", **odd}
    requests = [Request(arguments=arguments, seed=seed, recipe=recipe) for seed in (3, 5)]
    renderer, batched = _rendered(model, recipe, requests, 2)
    verdicts = {audited.verdict for audited in renderer.take_audits()}
    assert verdicts <= {"equal"}
    renderer, unbatched = _rendered(model, recipe, requests, 1)
    assert recorded == batched == unbatched


@pytest.mark.parametrize("name", long_but(PIPELINES, "wan", "z_image"))
def test_every_way_to_render_a_row_again_gives_the_same_frames(name: str, tmp_path: Path) -> None:
    _check(name, "generate", tmp_path)


@pytest.mark.parametrize("recipe", long_but(ALONE, "hook_on_a_layer_of_the_encoder"))
def test_so_does_a_recipe_that_changes_what_rows_share(recipe: str, tmp_path: Path) -> None:
    _check("sd", f"tests.odd_recipes:{recipe}", tmp_path)
