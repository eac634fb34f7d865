"""From recipes and scores to the files that Ray must bring to the workers: the user's own modules."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.scores.score import ClipScore


def modules_to_ship(named: Iterable[Recipe | ClipScore]) -> list[str]:
    """Return the file or package folder of each that is not installed, so not on other machines."""
    tops = {one.function.__module__.partition(".")[0] for one in named if one.is_own}
    paths = [Path(file) for top in sorted(tops) if (file := getattr(sys.modules[top], "__file__", None))]
    own = [path for path in paths if not {"site-packages", "dist-packages"} & set(path.parts)]
    return [str(path.parent if path.name == "__init__.py" else path) for path in own]
