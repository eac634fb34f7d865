"""Families of models that render images, in the order in which messages list them."""

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput, redrawn

IMAGE_FAMILIES = (
    Family(
        prefix="StableDiffusion3",
        default_size="config",
        sends=(),
        siblings=redrawn("StableDiffusion3"),
        training={"StableDiffusion3Pipeline": TrainingInput(layout="image_shifted")},
    ),
    Family(
        prefix="Flux",
        default_size=128,
        reads_guidance_once=True,
        sends=("mu",),
        siblings=redrawn("Flux"),
        training={"FluxPipeline": TrainingInput(layout="image_in_tokens")},
    ),
    Family(
        prefix="StableDiffusion",
        default_size="config",
        siblings=tuple(
            Sibling(task="image_to_image", source=f"{name}Pipeline", target=f"{name}Img2ImgPipeline")
            for name in ("StableDiffusion", "StableDiffusionXL")
        ),
        training={
            "StableDiffusionPipeline": TrainingInput(layout="image"),
            "StableDiffusionXLPipeline": TrainingInput(
                layout="image_normalised",
                # The first call under guidance is that one: it may be zeros.
                unprompted={"guidance_scale": 2.0},
            ),
        },
    ),
    Family(prefix="Flux2", default_size=128, reads_guidance_once=True, sends=("mu",)),
    Family(prefix="Flux2Klein", default_size=128, sends=("mu",)),
    Family(prefix="QwenImage", default_size=128, siblings=redrawn("QwenImage")),
    Family(prefix="QwenImage21", license="qwen-research"),
    Family(prefix="ZImage", siblings=redrawn("ZImage")),
    Family(prefix="Krea2", license="krea-2-community"),
    Family(prefix="Chroma", default_size=128, siblings=redrawn("Chroma")),
    Family(prefix="SanaPipeline"),
    Family(
        prefix="SanaSprint",
        reads_guidance_once=True,
        schedulers=("SCMScheduler",),  # its steps are angles between picture and noise
    ),
    Family(prefix="HunyuanImage", sends=("sigmas",)),
    Family(prefix="HiDream"),
    Family(prefix="GlmImage", default_size=128),
    Family(prefix="ErnieImage"),
    Family(prefix="Lumina2"),
    Family(prefix="PixArt"),
    Family(prefix="AuraFlow"),
    # Over Stable Diffusion 1.5.
    Family(prefix="LatentConsistencyModel", default_size="config", reads_guidance_once=True),
    # Without presets.
    Family(prefix="Amused", default_size="config", schedulers=("AmusedScheduler",), sends=()),
    Family(prefix="Ideogram4", reads_guidance_once=True, license="ideogram-4-non-commercial"),
    *(Family(prefix=f"Kandinsky5{task}", sends=()) for task in ("T2I", "I2I")),  # others make videos
    Family(prefix="Kolors", siblings=redrawn("Kolors", noising=None)),
    Family(prefix="VisualCloze", reads_guidance_once=True),
    # diffusers turns their frames to NumPy's as they are, which has no bf16.
    *(
        Family(prefix=prefix, dtypes={"default": "fp32"})
        for prefix in ("ConsistencyModel", "DDIM", "DDPM", "KarrasVe", "LDM", "PNDM", "RePaint", "ScoreSdeVe")
    ),
    # Resizes maps with antialiasing, which CPUs do not do in bf16.
    Family(prefix="Marigold", dtypes={"default": "fp32"}),
)
