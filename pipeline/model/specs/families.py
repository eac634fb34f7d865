"""From a pipeline's class name to its family's rules on sizes, frames and schedulers, as data.

Read from `check_inputs`, `prepare_latents` and `__call__` of each pipeline in diffusers 0.42. A class without
an entry gets `Family(prefix="")`: the factors of its autoencoder and denoiser, no guess at its default size.
"""

from __future__ import annotations

from dataclasses import dataclass

# The components whose forwards are most of the work, and run once for each step and row.
DENOISERS = ("transformer", "unet", "prior")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Rules of all pipelines whose class name starts with `prefix`.

    size_base: what `check_inputs` demands of height and width, whatever the configs say.
    packing: pixels of the latent that the pipeline itself folds into one token, beside the denoiser's patch.
    frame_factor: the frame step is this times the autoencoder's temporal factor; 0 takes any frame count.
    max_frames: of the longest clips that it was trained on, where it renders no longer ones.
    vae_factors: (spatial, temporal) where the pipeline has them as constants.
    drops_repeats: where no first frame is packed alone, images leave a clip fewer frames; the pipeline's own
        rules for rows check how many there are.
    fps: the rate that the model was trained at; None for images.
    fps_is_motion: the call's own `fps` says how much motion there is to be, not how fast the clip plays.
    default_size: (height, width) in pixels, or one number in latent pixels, of a call that gives no size;
        None asks the denoiser's config.
    sends: what the pipeline hands to `scheduler.set_timesteps` beside the number of steps.
    schedulers: the only classes that its loop works with; empty when any of the right kind does.
    """

    prefix: str
    size_base: int = 1
    packing: int = 1
    frame_factor: int = 1
    max_frames: int | None = None
    vae_factors: tuple[int, int] | None = None
    drops_repeats: bool = False
    fps: float | None = None
    fps_is_motion: bool = False
    default_size: tuple[int, int] | int | None = None
    sends: tuple[str, ...] = ("sigmas", "mu")  # the careful guess: what most flow-matching pipelines send
    schedulers: tuple[str, ...] = ()


_COGVIDEOX = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
_MOCHI = ("FlowMatchEulerDiscreteScheduler",)  # renders with inverted sigmas, which no other scheduler has
_VIDEOCRAFTER = ("VideoCrafterDDIMScheduler",)  # clean latents have another scale at each timestep

# CogVideoX decodes two latent frames at a time: only an odd number of them (8k + 1 frames) comes back whole.
FAMILIES = (
    Family(prefix="AnimateDiff", size_base=8, frame_factor=0, fps=8),
    Family(prefix="Allegro", size_base=8, frame_factor=0, fps=15),
    Family(prefix="Chroma", packing=2, default_size=128),
    Family(prefix="CogVideoX", size_base=8, frame_factor=2, fps=8, schedulers=_COGVIDEOX),
    Family(prefix="ConsisID", size_base=8, frame_factor=2, fps=8, schedulers=_COGVIDEOX),
    Family(
        prefix="DynamiCrafter",
        size_base=64,
        frame_factor=0,
        fps=8,
        fps_is_motion=True,
        schedulers=_VIDEOCRAFTER,
    ),
    Family(prefix="Flux", packing=2, default_size=128, sends=("mu",)),
    Family(prefix="HunyuanVideo", size_base=16, fps=24, sends=("sigmas",)),
    Family(prefix="HunyuanSkyreels", size_base=16, fps=24, sends=("sigmas",)),
    Family(prefix="Latte", size_base=8, frame_factor=0, fps=8),
    Family(prefix="LTX", size_base=32, fps=25),
    Family(prefix="LTX2", size_base=32, fps=24),
    Family(
        prefix="Mochi", size_base=8, fps=30, vae_factors=(8, 6), default_size=(480, 848), schedulers=_MOCHI
    ),
    Family(prefix="OpenSora", fps=24, max_frames=129, drops_repeats=True, sends=("sigmas",)),
    Family(prefix="QwenImage", packing=2, default_size=128),
    Family(prefix="SkyReelsV2", size_base=16, fps=24, sends=()),
    Family(prefix="StableDiffusion", size_base=8),
    Family(prefix="StableDiffusion3", sends=()),
    Family(prefix="StableVideoDiffusion", size_base=8, frame_factor=0, fps=7),
    Family(prefix="TextToVideo", size_base=8, frame_factor=0, fps=8),
    Family(
        prefix="VideoCrafter",
        size_base=64,
        frame_factor=0,
        fps=10,
        fps_is_motion=True,
        schedulers=_VIDEOCRAFTER,
    ),
    Family(prefix="Wan", size_base=16, fps=16, sends=()),
)


def family_of(class_name: str) -> Family:
    """Return the entry with the longest prefix of `class_name`, or the rules for a class that has none."""
    matches = [family for family in FAMILIES if class_name.startswith(family.prefix)]
    return max(matches, key=lambda family: len(family.prefix), default=Family(prefix=""))
