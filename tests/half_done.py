"""`python -m tests.half_done MODEL FOLDER`: goes on with half-done rows, named by their rows' ids."""

from __future__ import annotations

import sys
from pathlib import Path

from framefleet import Batching, Clip, Renderer, load_model


def main(model: str, folder: str) -> None:
    """Print row_id and frames_sha256 of each."""
    from tests.models.test_half_done import CASES

    loaded = load_model(model, dtype="fp32")
    loaded.pipe.tokenizer_max_length = 32
    renderer, rows = Renderer(loaded, Batching(min_gain=0)), CASES["Wan"].rows()
    for path in Path(folder).iterdir():
        renderer.submit(rows[path.name], path.name, path.read_bytes())
    while renderer.num_active:
        for clip in renderer.step():
            assert isinstance(clip, Clip), clip
            print(clip.row_id, clip.frames_sha256)


if __name__ == "__main__":
    main(*sys.argv[1:])
