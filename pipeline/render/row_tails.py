"""What recipes do after their last look at their frames: learned from one row, then done on a thread.

A row's look is a call of a processor of its pipeline that makes an array. Later rows go away (`RowThread`) at
the look that was the first row's last. Recipes that call a network or draw from global generators after it
stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import greenlet
from torch import nn

from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.render.fused.row_thread import row_thread

# Rows that may be away at once: each holds its frames as floats.
_MAX_AWAY = 2


class Tails:
    def __init__(self, num_away: Callable[[], int], *, is_able: bool) -> None:
        """num_away: rows that are away now. is_able: whether rows may be at all."""
        self.num_away, self.is_able = num_away, is_able
        self.num_looks: dict[str, int] = {}  # by recipe; 0 of one whose rows stay

    def has_look(self, recipe: str) -> bool:
        """Whether a recipe's rows are known to look at frames, and may go away then."""
        return self.is_able and self.num_looks.get(recipe, 0) > 0

    def begin(self, recipe: str) -> RowTail:
        """Return what counts the looks of a row that starts."""
        return RowTail(self, recipe, self.num_looks.get(recipe))

    def unlearn(self, recipe: str) -> None:
        """Let a recipe's rows stay: one does something after its look that another does not."""
        self.num_looks[recipe] = 0


class RowTail:
    """The looks of one row."""

    def __init__(self, tails: Tails, recipe: str, num_expected: int | None) -> None:
        """num_expected: looks of a row of the recipe; None: that is to be learned."""
        self._tails, self._recipe, self._num_expected = tails, recipe, num_expected
        self._num_looks = 0
        self._draws = b""  # what would be drawn next, as it looked last
        self._has_ended = self._calls_later = False  # a network, after it looked last
        self.watch = ExitStack()  # held while the row's code runs

    def _begin_to_watch(self) -> None:
        """Notice whether the row calls networks from now on. Not before: each call of each module is seen."""
        mine = greenlet.getcurrent()

        def see(*_: object) -> None:
            if greenlet.getcurrent() is mine:
                self._calls_later = True

        self.watch.callback(nn.modules.module.register_module_forward_pre_hook(see).remove)

    def look(self) -> None:
        """The row's code looks at its frames."""
        if self._has_ended:
            return
        self._num_looks += 1
        if (thread := row_thread()) is None:
            if self._num_looks == 1 and self._tails.is_able and self._num_expected is None:
                self._begin_to_watch()
            self._draws, self._calls_later = GlobalDraws.now().mark(), False
        elif self._num_looks == self._num_expected and self._tails.num_away() < _MAX_AWAY:
            thread.go_away()

    def end(self) -> None:
        self._has_ended = True
        if row_thread() is None:
            stays = self._num_looks and (self._calls_later or self._draws != GlobalDraws.now().mark())
            self._tails.num_looks.setdefault(self._recipe, 0 if stays else self._num_looks)
        elif self._num_looks != self._num_expected:
            self._tails.unlearn(self._recipe)
