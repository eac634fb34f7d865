"""Rows whose own code changes what all rows share: found when their turn ends, before another row's begins.

Recipes of framefleet call pipelines of diffusers, which put back what they change before they call a
denoiser; so for these rows it is enough to look when they end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from framefleet.pipeline.model.network_state import marks_agree, state_of
from framefleet.pipeline.render.loaded_model import Loaded
from framefleet.pipeline.render.process_state import ModuleState, changed_since, process_state
from framefleet.pipeline.render.row_queue import RenderRow


class Meddled(Exception):
    """Code of a row changed what all rows share."""

    def __init__(self, row: RenderRow, what: str) -> None:
        super().__init__(what)
        self.row, self.what = row, what


class RowWatch:
    """Watches the rows of one renderer."""

    def __init__(
        self,
        loaded: Loaded,
        denoisers: Mapping[str, nn.Module],
        switched: Collection[nn.Module],
        is_own: Callable[[RenderRow], bool],
        modules: Callable[[RenderRow], ModuleState],
    ) -> None:
        """switched: LoRA layers, which are set for each row. is_own: whether a row's recipe is its user's.
        modules: of such a recipe.
        """
        self._loaded, self._denoisers = loaded, denoisers
        self._switched, self._is_own, self._modules = frozenset(switched), is_own, modules

    def begin(self, row: RenderRow) -> None:
        """A row starts."""
        if self._is_own(row):
            self._loaded.sum_weights()
            self._modules(row)

    @contextmanager
    def turn(self, row: RenderRow) -> Iterator[None]:
        """Raise Meddled where the code of a row, which is the block, leaves something changed."""
        if not self._is_own(row):
            yield
            return
        before = {name: state_of(network, self._switched) for name, network in self._denoisers.items()}
        surroundings, modules = process_state(), self._modules(row)
        remembered = modules.now()
        yield
        what = (
            self._loaded.difference(values=True)
            or changed_since(surroundings)
            or modules.changed_since(remembered)
        )
        for name, network in self._denoisers.items() if not what else ():
            after = state_of(network, self._switched)
            spots = {**before[name], **after}
            changed = (spot for spot in spots if not marks_agree(before[name].get(spot), after.get(spot)))
            what = what or next((".".join(filter(None, (name, *spot))) for spot in changed), None)
        if what:
            raise Meddled(row, what)

    def check(self, ended: Iterable[RenderRow]) -> None:
        """Raise Meddled where rows that ended together with others have left something changed."""
        for row in ended:
            if row.is_alone or self._is_own(row):  # its plain call, or its last turn, was compared
                continue
            if what := self._loaded.difference():
                raise Meddled(row, what)
