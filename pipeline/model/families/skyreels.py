"""SkyReels V2: from text, from an image, and by diffusion forcing, which also goes on from a video.

Configs of the networks: diffusers' script convert_skyreelsv2_to_diffusers. Sizes, guidance, shift, rate:
the docstrings of its pipelines; sizes of the 720P models: README of github.com/SkyworkAI/SkyReels-V2.
"""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, Sibling

_LARGE = Preset(
    name="skyreels-v2-t2v-14b",
    models=("Skywork/SkyReels-V2-T2V-14B-540P-Diffusers", "Skywork/SkyReels-V2-T2V-14B-720P-Diffusers"),
    pipelines=("SkyReelsV2Pipeline",),
    match=dict(transformer=dict(num_layers=40, in_channels=16)),
    arguments=dict(height=544, width=960, num_frames=97, num_inference_steps=50, guidance_scale=6.0),
    dtypes=dict(vae="fp32"),
    parameters=dict(transformer=14288, text_encoder=5681, vae=127),
    held=dict(transformer=584, text_encoder=1050),
    token=(4, 16, 16),
    width=5120,
    licence="skywork-license",
    scheduler="UniPC, flow_shift 8",
    note="The 720P model also renders 720 x 1280, 121 frames.",
)
_FORCED = (
    "SkyReelsV2DiffusionForcingPipeline",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline",
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
)
_FORCED_NOTE = (
    "Longer clips go on from their last frames: give `overlap_history` (17) and `base_num_frames` (97). "
    "From an image guidance 5 and flow_shift 5 suit better."
)
_FORCED_LARGE = replace(
    _LARGE,
    name="skyreels-v2-df-14b",
    models=("Skywork/SkyReels-V2-DF-14B-540P-Diffusers", "Skywork/SkyReels-V2-DF-14B-720P-Diffusers"),
    inputs=("text", "image", "video"),
    pipelines=_FORCED,
    arguments={**_LARGE.arguments, "num_inference_steps": 30},
    note=_FORCED_NOTE,
)

SKYREELS = Family(
    prefix="SkyReelsV2",
    fps=24,
    dtypes={"default": "bf16", "vae": "fp32"},
    sends=(),
    siblings=(
        Sibling(
            task="image_to_video",
            source="SkyReelsV2DiffusionForcingPipeline",
            target="SkyReelsV2DiffusionForcingImageToVideoPipeline",
        ),
    ),
    presets=(
        _LARGE,
        replace(
            _LARGE,
            name="skyreels-v2-i2v-14b",
            models=(
                "Skywork/SkyReels-V2-I2V-14B-540P-Diffusers",
                "Skywork/SkyReels-V2-I2V-14B-720P-Diffusers",
            ),
            inputs=("image",),
            pipelines=("SkyReelsV2ImageToVideoPipeline",),
            match=dict(transformer=dict(num_layers=40, in_channels=36, image_dim=1280)),
            arguments={**_LARGE.arguments, "guidance_scale": 5.0},
            parameters=dict(transformer=16395, text_encoder=5681, image_encoder=632, vae=127),
            held=dict(transformer=645, text_encoder=1050),
            scheduler="UniPC, flow_shift 5",
        ),
        _FORCED_LARGE,
        replace(
            _FORCED_LARGE,
            name="skyreels-v2-df-1.3b",
            models=("Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers",),
            match=dict(transformer=dict(num_layers=30, in_channels=16)),
            parameters=dict(transformer=1436, text_encoder=5681, vae=127),
            held=dict(transformer=89, text_encoder=1050),
            width=1536,
        ),
    ),
)
