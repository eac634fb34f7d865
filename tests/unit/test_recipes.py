"""Recipes are found by name, and refused with a reason."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import diffusers
import pytest

from framefleet import ModelError, RecipeError, Request
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.recipes.catalog import BUILT_IN, find_recipe, generate, recipe_of_row

ROOT = Path(__file__).parents[2]
SOURCE = """
import functools
from shutil import rmtree

def __getattr__(name):
    assert name != "lazy", "ran"
    raise AttributeError(name)

def render(pipe, request):
    return pipe, request.seed

@functools.wraps(render)
def wrapped(*args):
    return render(*args)

def narrow(pipe):
    return pipe

def other(pipe, request):
    return pipe

def _private(pipe, request):
    return pipe

wide = functools.partial(render, None)
number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Write a module into an empty working folder; return its name, another for every test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "none"))  # what a test adds does not stay
    name = "recipes_" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    (tmp_path / f"{name}.py").write_text(SOURCE)
    return name


def test_generate_calls_the_pipeline_once_with_a_generator_at_the_rows_seed() -> None:
    recipe = find_recipe("generate")
    request = Request(arguments={"prompt": "x", "num_inference_steps": 2}, seed=5)
    assert recipe.function is generate
    assert recipe.digest is None
    given = recipe.function(lambda **arguments: arguments, request)
    assert given.pop("generator").initial_seed() == 5
    assert given == {"prompt": "x", "num_inference_steps": 2, "output_type": "np"}


def test_a_module_of_the_working_folder_is_found_with_the_digest_of_its_file(module: str) -> None:
    recipe = find_recipe(f"{module}:render")
    assert recipe.name == f"{module}:render"
    assert recipe.function("pipe", Request(seed=4)) == ("pipe", 4)
    assert recipe.digest == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert find_recipe(f"{module}:wrapped").function("pipe", Request(seed=4)) == ("pipe", 4)


@pytest.mark.parametrize(
    ("name", "problem", "fix"),
    [
        *((name, "no recipe", "module:function") for name in ("generat", "", "render")),
        *((f"MODULE:{name}", "has no function", "") for name in ("rendr", "number", "functools", "wide")),
        ("MODULE:", "no recipe", ""),
        ("MODULE:narrow", r"takes \(.*, not \(pipe, request\)", ""),
        ("os.path:join", r"os\.path has no source file", ""),
        ("recipes/mine.py:bright", "", "write mine:bright, without .py"),
        *((name, "cannot import", "") for name in ("no_such_module:f", ":f", ".relative:f")),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_reason(name: str, problem: str, fix: str, module: str) -> None:
    with pytest.raises(RecipeError, match=problem) as caught:
        find_recipe(name.replace("MODULE", module))
    assert fix in caught.value.fix


@pytest.mark.parametrize("source", ["def broken(:", "raise ValueError('at import')", "import no_such_module"])
def test_a_module_that_fails_to_import_is_refused_with_why(module: str, source: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(source)
    with pytest.raises(RecipeError, match="cannot import"):
        find_recipe(f"{module}:render")


def test_a_row_names_recipes_of_framefleet_and_public_functions_of_the_jobs_module(module: str) -> None:
    own = find_recipe(f"{module}:render")
    assert recipe_of_row("generate", own) is find_recipe("generate")
    assert recipe_of_row(own.name, own) is own
    for name in ("other", "wrapped"):
        assert recipe_of_row(f"{module}:{name}", own) == find_recipe(f"{module}:{name}")


@pytest.mark.parametrize("name", ["rmtree", "_private", "wide", "number", "lazy", "functools.wraps", "", ":"])
def test_a_row_names_nothing_else_of_it(module: str, name: str) -> None:
    with pytest.raises(RecipeError, match="defines no such public function"):
        recipe_of_row(f"{module}:{name}", find_recipe(f"{module}:render"))


@pytest.mark.parametrize("own", ["generate", "MODULE:render"])
def test_for_a_row_nothing_is_imported(module: str, own: str, tmp_path: Path) -> None:
    (tmp_path / "generate.py").write_text("raise AssertionError('ran')")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "__init__.py").write_text("raise AssertionError('ran')")
    job = find_recipe(own.replace("MODULE", module))
    near = (f"{module}.sub:f", f"{module[:-1]}:f", f"x.{module}:f")
    for name in ("generate:x", "generate:", "sub:f", "os:system", "x", "", *near):
        with pytest.raises(RecipeError, match="not in a module that the job names"):
            recipe_of_row(name, job)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_recipe_has_its_row_on_the_page_of_recipes(name: str) -> None:
    assert f"\n| `{name}` | " in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_a_module_next_to_the_job_file_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("jobs", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside_job.py").write_text(f"def own(pipe, request): return {folder!r}\n")
    monkeypatch.chdir(tmp_path / "here")
    folder = str(tmp_path / "jobs")
    assert find_recipe("beside_job:own", folder).function(None, None) == "jobs"
    with pytest.raises(RecipeError, match="this process already imported"):
        find_recipe("beside_job:own", str(tmp_path / "here"))
    with pytest.raises(RecipeError, match="cannot import") as caught:
        find_recipe("no_such_beside_job:own", folder)
    assert folder in caught.value.fix
    del sys.modules["beside_job"]


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
