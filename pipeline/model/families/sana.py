"""SANA and SANA-Sprint, for images, and SANA-Video."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset

SANA = Family(
    prefix="SanaPipeline",
    presets=(
        # The call's defaults.
        Preset(
            name="sana-1.6b",
            models=("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",),
            pipelines=("SanaPipeline",),
            match=dict(transformer=dict(num_layers=20, num_attention_heads=70, sample_size=32)),
            arguments=dict(height=1024, width=1024, num_inference_steps=20, guidance_scale=4.5),
            parameters=dict(transformer=1604, text_encoder=2614, vae=312),
            held=dict(transformer=124, text_encoder=590),
            token=(1, 32, 32),
            width=2240,
            joined=True,
            licence="NSCL v2-custom, NVIDIA's",
        ),
    ),
)

SANA_SPRINT = Family(
    prefix="SanaSprint",
    reads_guidance_once=True,
    schedulers=("SCMScheduler",),  # its steps are angles between picture and noise
    presets=(
        # The call's defaults.
        Preset(
            name="sana-sprint-1.6b",
            models=("Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",),
            inputs=("text", "image"),
            pipelines=("SanaSprintPipeline", "SanaSprintImg2ImgPipeline"),
            match=dict(transformer=dict(num_layers=20, num_attention_heads=70, guidance_embeds=True)),
            arguments=dict(height=1024, width=1024, num_inference_steps=2, guidance_scale=4.5),
            parameters=dict(transformer=1610, text_encoder=2614, vae=312),
            held=dict(transformer=130, text_encoder=590),
            token=(1, 32, 32),
            width=2240,
            licence="NSCL v2-custom, NVIDIA's",
            scheduler="SCM",
            note="With other than 2 steps, `intermediate_timesteps` is to be null, which no cell can say.",
        ),
    ),
)

# Config: diffusers' script convert_sana_video_to_diffusers. Values of the call: the docstrings of
# SanaVideoPipeline and SanaImageToVideoPipeline.
_480P = Preset(
    name="sana-video-2b-480p",
    models=("Efficient-Large-Model/SANA-Video_2B_480p_diffusers",),
    pipelines=("SanaVideoPipeline",),
    match=dict(transformer=dict(num_layers=20, in_channels=16, sample_size=30)),
    arguments=dict(height=480, width=832, frames=81, num_inference_steps=50, guidance_scale=6.0),
    parameters=dict(transformer=2057, text_encoder=2614, vae=127),
    held=dict(transformer=147, text_encoder=590),
    token=(4, 16, 16),
    width=2240,
    joined=True,
    licence="nvidia-open-model",
    scheduler="DPMSolver, flow_shift 8",
    note="The argument is `frames`. Sizes near one of its own are rendered at that, and resized.",
)
SANA_VIDEO = Family(prefix="SanaVideo", fps=16, sends=(), presets=(_480P,))
# Its name begins as those of SANA for images do.
SANA_IMAGE_TO_VIDEO = replace(
    SANA_VIDEO,
    prefix="SanaImageToVideo",
    presets=(
        replace(
            _480P,
            name="sana-video-2b-480p-i2v",
            models=(),
            inputs=("image",),
            pipelines=("SanaImageToVideoPipeline",),
            scheduler="FlowMatchEuler, shift 8",
            note=f"The weights of {_480P.name}, in the other pipeline. {_480P.note}",
        ),
    ),
)
