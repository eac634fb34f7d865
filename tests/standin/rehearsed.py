"""In: a decoder that runs out of memory at large clips. Out: what a rehearsal finds, as checks.

Run in a process of its own: `python -m tests.standin.rehearsed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from tests.standin.install import install

STEPS = 3


def main() -> None:
    torch.set_num_threads(1)
    install()
    # After CUDA's stand-in is there.
    from framefleet import Audit, Batching, Clip, Failure, Renderer, Request, load_model
    from framefleet.pipeline.hooks.intercept import intercept
    from tests.tiny import SMALLEST, tiny

    model = load_model(tiny("wan"), dtype="fp32", device="cuda")
    arguments = {**SMALLEST["wan"], "prompt": "a red ball", "num_inference_steps": STEPS}
    small, large = (Request(arguments=arguments | {"num_frames": frames}, seed=1) for frames in (5, 9))
    decoded: list[int] = []  # frames of latents
    denoised: list[str] = []
    said = Said()
    max_frames = 2

    def decode(
        name: str, original: Callable[..., Any], latents: torch.Tensor, *more: Any, **rest: Any
    ) -> Any:
        decoded.append(latents.shape[2])
        if latents.shape[2] > max_frames:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(latents, *more, **rest)

    def denoise(name: str, original: Callable[..., Any], *given: Any, **named: Any) -> Any:
        denoised.append(name)
        return original(*given, **named)

    def rehearsed() -> Renderer:
        decoded.clear()
        renderer = Renderer(model, Batching(max_rows=2, remember=False), audit=Audit(every=0))
        renderer.rehearse(large)
        return renderer

    with (
        intercept({"vae": model.pipe.vae}, decode, method="decode"),
        intercept({"transformer": model.pipe.transformer}, denoise),
    ):
        rehearsed()
        assert decoded == [3] and len(said.texts) == 1
        assert "rows of 9 x" in said.texts[0] and "do not fit" in said.texts[0]
        renderer = rehearsed()
        assert decoded == [3], "what does not fit is not remembered"
        calls_a_step = len(denoised) // 2
        denoised.clear()
        failure, clip = renderer.render([large, small])
        assert isinstance(failure, Failure) and "rehearsal" in str(failure.error)
        assert isinstance(clip, Clip) and decoded == [3, 2]
        assert len(denoised) == STEPS * calls_a_step, "no step of the large row"

        max_frames = 3
        renderer = Renderer(model, Batching(max_rows=2, remember=False), audit=Audit(every=0))
        (plain,) = renderer.render([large])
        for decodes in ([3], []):  # what fits is remembered
            renderer = rehearsed()
            assert decoded == decodes
            (clip,) = renderer.render([large])
            assert isinstance(plain, Clip) and isinstance(clip, Clip)
            assert clip.frames_sha256 == plain.frames_sha256
    assert len(said.texts) == 2


class Said(logging.Handler):
    """Keeps what rehearsals warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        logging.getLogger("framefleet.pipeline.render.rehearsal").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


if __name__ == "__main__":
    main()
