"""The tiny pipelines of image classes: how each is built, its smallest call, and what it starts from.

Those of sound from spectrograms too. Beside those of `tests/tinies/image.py`, which other tests name.
"""

from __future__ import annotations

from tests.tinies import (
    autumn,
    controlled,
    deepfloyd,
    deprecated,
    flux_kin,
    hunyuan,
    image,
    image_edits,
    image_transformers,
    in_context,
    kandinsky,
    modular,
    qwen_kin,
    sana,
    sound,
    stable_diffusion_kin,
    untexted,
    z_image,
)
from tests.tinies.table import LARGER, Tinies

TINIES: Tinies = {
    "hunyuan_image": (image.hunyuan_image, LARGER, ()),
    "hunyuan_image_refiner": (image.hunyuan_image_refiner, LARGER, ("image",)),
    "qwen_2_1": (qwen_kin.qwen_2_1, LARGER, ()),
    "glm_image": (image_transformers.glm_image, LARGER, ()),
    "qwen_image": (qwen_kin.qwen_image, LARGER, ()),
    **autumn.TINIES,
    **controlled.TINIES,
    **deepfloyd.TINIES,
    **deprecated.TINIES,
    **flux_kin.TINIES,
    **hunyuan.TINIES,
    **image_edits.TINIES,
    **image_transformers.TINIES,
    **in_context.TINIES,
    **kandinsky.TINIES,
    **modular.TINIES,
    **qwen_kin.TINIES,
    **sana.TINIES,
    **sound.TINIES,
    **stable_diffusion_kin.TINIES,
    **untexted.TINIES,
    **z_image.TINIES,
}
