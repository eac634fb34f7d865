"""Open-Sora v2, which diffusers lacks: from text, images and videos."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, TrainingInput

_MODULES = "framefleet.pipeline.models.opensora"
LONGEST_CLIP = 129  # of the longest clips that it was trained on

# github.com/hpcaitech/Open-Sora configs/diffusion/inference/256px.py and high_compression.py
_V2 = Preset(
    name="open-sora-v2",
    inputs=("text", "image", "video"),
    pipelines=("OpenSoraPipeline",),
    match=dict(
        transformer=dict(num_layers=19, num_single_layers=38, patch_size=2),
        vae=dict(spatial_compression_ratio=8),
    ),
    arguments=dict(height=192, width=336, num_frames=129, num_inference_steps=50, guidance_scale=7.5),
    parameters=dict(transformer=11891, text_encoder=123, text_encoder_2=4762, vae=246),
    held=dict(transformer=394, text_encoder_2=132),
    token=(4, 16, 16),
    width=3072,
    licence="apache-2.0",
    scheduler="FlowMatchEuler; the pipeline shifts it by size and length",
    note=(
        "Make a folder with `framefleet model convert`, see open_sora.md. Also renders 576 x "
        "1024: `resolution` 768px. Its authors begin with an image of Flux: the recipe "
        "`text_to_image_to_video`."
    ),
)
OPENSORA = Family(
    prefix="OpenSora",
    max_frames=LONGEST_CLIP,
    drops_repeats=True,
    fps=24,
    sends=("sigmas",),
    training={
        "OpenSoraPipeline": TrainingInput(
            layout="in_tokens",
            unprompted={"frame_rate": None, "motion_score": None},  # a negative prompt has neither
            inputs=f"{_MODULES}.conditions:training_inputs",
        ),
    },
    pipelines={"OpenSoraPipeline": f"{_MODULES}.pipeline_opensora"},
    components={"AutoencoderDCVideo": f"{_MODULES}.autoencoder_dc_video"},
    row_rules=f"{_MODULES}.rules:row_rules",
    converter=f"{_MODULES}.convert:convert_opensora",
    presets=(
        _V2,
        replace(
            _V2,
            name="open-sora-v2-dc-ae",
            match=dict(
                transformer=dict(num_layers=19, num_single_layers=38, patch_size=1),
                vae=dict(
                    _class_name="AutoencoderDCVideo",
                    encoder_block_out_channels=[128, 256, 512, 512, 1024, 1024],
                ),
            ),
            arguments={**_V2.arguments, "height": 576, "width": 1024, "num_frames": 128},
            parameters={**_V2.parameters, "transformer": 11892, "vae": 459},
            held=dict(transformer=395, text_encoder_2=132),
            token=(4, 32, 32),
            note=(
                "A study of its authors: 32 x 32 pixels and four frames to a latent. Make a folder with "
                "`framefleet model convert`. Renders 4k frames; 3 less for an image at each end."
            ),
        ),
    ),
)
