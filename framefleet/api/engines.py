"""Engines, which render instead of a local model: the door of `engine:`."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.engine import (
        PAID as PAID,
        Engine as Engine,
        EngineClip as EngineClip,
        EngineRow as EngineRow,
        EngineSession as EngineSession,
        Halted as Halted,
        Left as Left,
        engine_spec as engine_spec,
        paid_before as paid_before,
    )
    from framefleet.pipeline.guards.hosts import (
        is_plain_address as is_plain_address,
        is_public as is_public,
        public_sockets as public_sockets,
        retry_after_s as retry_after_s,
    )
    from framefleet.pipeline.model.specs.signature import ArgumentKind as ArgumentKind, Parameter as Parameter
    from framefleet.pipeline.outputs.clips import SentFile as SentFile
    from framefleet.pipeline.rows.inputs.pictures import open_image as open_image
    from framefleet.pipeline.rows.inputs.video_frames import (
        declared_frames as declared_frames,
        file_kind as file_kind,
        frames_of as frames_of,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
