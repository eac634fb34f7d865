"""The option `attention`: which kernels a model's rows are computed by, and no other model's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from framefleet import Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from tests.options import GROWING, digest, plain, rendered, requests
from tests.tiny import tiny
from tests.unaudited import unaudited


def test_auto_attention_falls_back_and_a_record_says_what_it_became() -> None:
    model = load_model(tiny("ltx"), dtype="fp32", attention="auto")  # LTX hands over a mask
    assert model.attention is not None
    assert model.attention.name == "_native_flash"
    load_model(tiny("ltx"), attention="_native_math")  # for that model alone, and not for the process
    clips = rendered(model, requests("ltx"))
    assert {clip.environment["attention"] for clip in clips} == {"native"}
    assert "attention" not in load_model(tiny("sd"), attention="auto").environment  # has no choice
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("ltx"), clip.request) for clip in clips]


def test_rows_under_way_begin_again_when_attention_changes() -> None:
    model = load_model(tiny("wan"), dtype="fp32", attention="auto")
    assert model.attention is not None
    calls: list[str] = []
    starts: list[int] = []

    def noted(pipe: Any, request: Request) -> Any:
        starts.append(request.seed)
        return generate(pipe, request)

    def refuse(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) > 12 and model.attention and model.attention.name == "_native_flash":
            raise RuntimeError("no such kernel for this")
        return original(*args, **kwargs)

    with intercept({"transformer": model.pipe.transformer}, refuse):
        recipes = {"noted": Recipe(name="noted", function=noted, digest="")}
        rows = [replace(row, recipe="noted") for row in requests()]
        clips = list(unaudited(model, GROWING, recipes=recipes).render(rows))
    assert {clip.environment["attention"] for clip in clips} == {"native"}
    assert sorted(starts) == sorted(2 * [row.seed for row in rows])
    assert [clip.frames_sha256 for clip in clips] == [digest(plain("wan"), clip.request) for clip in clips]
