"""Which name an error proposes in place of one that nothing has."""

from __future__ import annotations

import pytest

from framefleet.pipeline.guards.mistakes import did_you_mean


@pytest.mark.parametrize(
    ("word", "names", "fix"),
    [
        ("row", ["narrowness", "rows"], "did you mean 'rows'?"),
        ("red", ["filtered", "rad"], "did you mean 'rad'?"),
        ("dtype", ["compile", "model_dtype_of_weights"], "did you mean 'model_dtype_of_weights'?"),
        ("size", ["prompt", "seed"], "use one of prompt, seed"),
    ],
)
def test_the_nearest_name_comes_before_one_that_has_the_word(word: str, names: list[str], fix: str) -> None:
    assert did_you_mean(word, names) == fix
