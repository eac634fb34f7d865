"""What a table may give of a callable, as its signature says."""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.model.specs.signature import parameters_of


def call(
    prompt: str | list[str],
    picture: "NotImported | None" = None,  # type: ignore[name-defined]  # noqa: F821, UP037
    steps: int | None = None,
    sigmas: list[float] | None = None,
    seed: int = 0,
    conditions: Any = None,
) -> None: ...


def test_one_annotation_that_cannot_be_read_leaves_the_others() -> None:
    kinds = {parameter.name: parameter.kind for parameter in parameters_of(call)}
    assert kinds == {
        "prompt": "str",
        "picture": None,
        "steps": "int",
        "sigmas": "list[float]",
        "seed": None,  # framefleet gives a generator
        "conditions": None,
    }
