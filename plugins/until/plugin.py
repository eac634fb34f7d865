"""The section `until` of a job: new seeds are rendered until enough clips of each group pass a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framefleet.doors import Listener, Plugin

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.stores.store import Store  # imports fsspec


class UntilListener(Listener):
    def notes(self, store: Store) -> Sequence[str]:
        from framefleet.plugins.until.acceptance import read_acceptance

        return acceptance.lines() if (acceptance := read_acceptance(store)) else ()


PLUGIN = Plugin(
    sections={"until": "framefleet.plugins.until.section:UntilSection"},
    clip_steps={"until": "framefleet.plugins.until.step:AcceptanceStep"},
    runners=["framefleet.plugins.until.runner:UntilRunner"],
    listeners=["framefleet.plugins.until.plugin:UntilListener"],
)
