"""Recipe of mlperf_t2v.yaml: every row starts from the same latents, those of a file."""

from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def _latents(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def fixed_latents(pipe, request, latents_file="fixed_latent.pt"):
    """latents_file: the benchmark's fixed_latent.pt, (1, 16, 21, 90, 160) for 81 frames of 720 x 1280."""
    output = pipe(
        **request.arguments,
        latents=_latents(latents_file),
        generator=request.generator(),
        output_type="np",
    )
    return output.frames[0]
