"""From recipes to the files that Ray must bring to the workers: the user's own modules."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from framefleet.pipeline.recipes.recipe import Recipe


def modules_to_ship(recipes: Iterable[Recipe]) -> list[str]:
    """Return the file or package folder of each recipe that is not installed, so not on other machines."""
    tops = {recipe.function.__module__.partition(".")[0] for recipe in recipes if recipe.digest is not None}
    paths = [Path(file) for top in sorted(tops) if (file := getattr(sys.modules[top], "__file__", None))]
    own = [path for path in paths if not {"site-packages", "dist-packages"} & set(path.parts)]
    return [str(path.parent if path.name == "__init__.py" else path) for path in own]
