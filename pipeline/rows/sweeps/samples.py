"""From what is drawn from to combinations: by chance, or evenly spread."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framefleet.pipeline.rows.sweeps.numbers import NumberList, count, number_between
from framefleet.pipeline.rows.sweeps.settings import SampleMethod, Spread


def points(method: SampleMethod, *, num: int, dimensions: int, seed: int) -> NDArray[np.float64]:
    """Return (num, dimensions) numbers from 0 to below 1, the same for a seed; of more, these are the first.

    sobol: Sobol' sequence, scrambled (Owen 1998).
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    if method == "random":
        return rng.random((num, dimensions))
    from scipy.stats import qmc  # takes a second

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties")  # of powers of two alone
        found: NDArray[np.float64] = qmc.Sobol(dimensions, rng=rng).random(num)
    return found


def drawn_between(places: NDArray[np.float64], written: Spread, *, is_whole: bool) -> list[float] | list[int]:
    """Return the number of a range at each place, 0 to below 1, to six digits, or a whole one."""
    first, last = float(written.from_ or 0), float(written.to or 0)
    found = [number_between(first, last, float(place), is_log=written.scale == "log") for place in places]
    return [*map(round, found)] if is_whole else found


def drawn_from(places: NDArray[np.float64], values: NumberList | list[Any]) -> list[Any]:
    """Return one of the values for each place, 0 to below 1."""
    num = count(values)
    return [values[min(int(place * num), num - 1)] for place in places]
