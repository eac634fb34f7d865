"""An engine of the plugin: each clip is what a program writes. Imported when a job names it."""

import json
import subprocess
from typing import Any

import numpy as np
from pydantic import Field

from framefleet.api.engines import (
    Engine,
    EngineClip,
    EngineRow,
    EngineSession,
    Parameter,
    SentFile,
    declared_frames,
    engine_spec,
    frames_of,
)
from framefleet.api.errors import RenderError
from framefleet.api.models import PipelineSpec
from framefleet.api.outputs import Store


class ProgramEngine(Engine):
    """`engine: {type: program, model: NAME, program: [python, FILE]}`."""

    program: list[str] = Field(description="Reads a request as JSON, and writes an mp4.")

    def deciding(self) -> dict[str, Any]:
        return {**super().deciding(), "program": self.program}

    def spec(self) -> PipelineSpec:
        kinds = {"prompt": "str", "num_frames": "int"}
        return engine_spec("program", "video", {n: Parameter(name=n, kind=k) for n, k in kinds.items()})

    def start(self, store: Store) -> EngineSession:
        return ProgramSession(self.program)


class ProgramSession(EngineSession):
    num_parallel = 2

    def __init__(self, program: list[str]) -> None:
        self.program = program

    def render(self, row: EngineRow) -> EngineClip:
        asked = json.dumps({**row.request.arguments, "seed": row.request.seed}).encode()
        ended = subprocess.run(self.program, input=asked, capture_output=True, check=False)
        if ended.returncode:
            raise RenderError(f"the program ended with {ended.returncode}", ended.stderr.decode()[-200:])
        frames = np.stack([np.asarray(frame) for frame in frames_of(ended.stdout)])
        return EngineClip(
            frames=frames, fps=declared_frames(ended.stdout)[1], sent=SentFile(ended.stdout, "mp4")
        )
