"""A row that was taken off a renderer, and what another needs to go on with it."""

from __future__ import annotations

from functools import cached_property

from framefleet.pipeline.render.checkpoints.checkpoint import RowCheckpoint, checkpoint_bytes
from framefleet.pipeline.request import Request


class HalfDone:
    """A row that is not a clip yet."""

    def __init__(
        self, row_id: str, request: Request, checkpoint: RowCheckpoint | bytes | None = None
    ) -> None:
        self.row_id, self.request = row_id, request
        self._checkpoint = checkpoint

    @property
    def can_go_on(self) -> bool:
        """Whether there is a checkpoint; to ask makes none."""
        return self._checkpoint is not None

    @cached_property
    def checkpoint(self) -> bytes | None:
        """The bytes for `Renderer.submit`, made once they are asked for, from any thread; else None."""
        if isinstance(self._checkpoint, RowCheckpoint):
            return checkpoint_bytes(self._checkpoint)
        return self._checkpoint
