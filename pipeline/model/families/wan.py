"""Wan 2.1 and 2.2: from text, from an image, over a video."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, Sibling, TrainingInput

_TEXT_ONLY = ("its weights start from text alone", "use a Wan 2.2 TI2V model, or an image-to-video folder")
_TWO_PARTS = (
    "diffusers' WanVideoToVideoPipeline knows neither two transformers nor the autoencoder of Wan 2.2 TI2V",
    "use a Wan 2.1 text-to-video model",
)

# The demo's, trained here: jobs/demo/shapes/README.md.
SHAPES_MODEL = Preset(
    name="framefleet-shapes",
    pipelines=("WanPipeline",),
    match=dict(transformer=dict(num_layers=6, in_channels=24, ffn_dim=704, text_dim=128)),
    arguments=dict(
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=16,
        guidance_scale=2.5,
        max_sequence_length=64,
    ),
    parameters=dict(transformer=4, text_encoder=1, vae=1),
    held=dict(),
    token=(2, 16, 16),
    width=192,
    licence="apache-2.0",
    note="The model of `framefleet demo`: one shape of one colour, 9 to 33 frames, 64 x 64 to 128 x 128.",
)

# Configs: diffusers' script convert_wan_to_diffusers. Values of the call: the signature of
# WanVACEPipeline; precision: its docstring.
_WAN2_1_VACE_14B = Preset(
    name="wan2.1-vace-14b",
    models=("Wan-AI/Wan2.1-VACE-14B-diffusers",),
    inputs=("text", "video"),
    pipelines=("WanVACEPipeline",),
    match=dict(transformer=dict(num_layers=40, vace_in_channels=96)),
    arguments=dict(height=480, width=832, num_frames=81, num_inference_steps=50, guidance_scale=5.0),
    dtypes=dict(vae="fp32"),
    parameters=dict(transformer=17338, text_encoder=5681, vae=127),
    held=dict(transformer=639, text_encoder=1050),
    token=(4, 16, 16),
    width=5120,
    licence="apache-2.0",
    note="With a `video` clips have its shape, within height x width. At 720P flow_shift 5.",
)

WAN = Family(
    prefix="Wan",
    fps=16,
    fps_when={"index.expand_timesteps": 24.0},  # Wan 2.2 TI2V-5B
    sends=(),
    siblings=(
        Sibling(
            task="image_to_video",
            source="WanPipeline",
            target="WanImageToVideoPipeline",
            when={"index.expand_timesteps": True},
            otherwise=_TEXT_ONLY,
        ),
        Sibling(
            task="video_to_video",
            source="WanPipeline",
            target="WanVideoToVideoPipeline",
            when={"index.expand_timesteps": False, "index.boundary_ratio": False},
            otherwise=_TWO_PARTS,
        ),
    ),
    training={
        "WanPipeline": TrainingInput(layout="normalised"),
        "WanImageToVideoPipeline": TrainingInput(layout="normalised"),
    },
    presets=(
        # Steps, guidance (high noise, then low noise) and shift:
        # github.com/Wan-Video/Wan2.2 wan/configs/wan_t2v_A14B.py
        replace(
            _WAN2_1_VACE_14B,
            name="wan2.2-t2v-a14b",
            models=("Wan-AI/Wan2.2-T2V-A14B-Diffusers",),
            inputs=("text",),
            pipelines=("WanPipeline", "Wan22ModularPipeline"),
            match=dict(index=dict(boundary_ratio=0.875), transformer=dict(num_layers=40, in_channels=16)),
            arguments=dict(
                height=720,
                width=1280,
                num_frames=81,
                num_inference_steps=40,
                guidance_scale=4.0,
                guidance_scale_2=3.0,
            ),
            parameters=dict(transformer=14288, transformer_2=14288, text_encoder=5681, vae=127),
            held=dict(transformer=584, transformer_2=584, text_encoder=1050),
            note=(
                "Two transformers; `guidance_scale_2` is that of the second, for low noise. The authors' "
                "own code uses shift 12."
            ),
        ),
        # github.com/Wan-Video/Wan2.2 wan/configs/wan_i2v_A14B.py
        replace(
            _WAN2_1_VACE_14B,
            name="wan2.2-i2v-a14b",
            models=("Wan-AI/Wan2.2-I2V-A14B-Diffusers",),
            inputs=("image",),
            pipelines=("WanImageToVideoPipeline", "Wan22Image2VideoModularPipeline"),
            match=dict(index=dict(boundary_ratio=0.9), transformer=dict(num_layers=40, in_channels=36)),
            arguments=dict(
                height=480,
                width=832,
                num_frames=81,
                num_inference_steps=40,
                guidance_scale=3.5,
                guidance_scale_2=3.5,
            ),
            parameters=dict(transformer=14289, transformer_2=14289, text_encoder=5681, vae=127),
            held=dict(transformer=584, transformer_2=584, text_encoder=1050),
            note="Two transformers. Also renders 720 x 1280. The authors' own code uses shift 5.",
        ),
        # github.com/Wan-Video/Wan2.2 wan/configs/wan_ti2v_5B.py
        Preset(
            name="wan2.2-ti2v-5b",
            models=("Wan-AI/Wan2.2-TI2V-5B-Diffusers",),
            inputs=("text", "image"),
            pipelines=("WanPipeline", "WanImageToVideoPipeline"),
            match=dict(transformer=dict(num_layers=30, in_channels=48)),
            arguments=dict(
                height=704, width=1280, num_frames=121, num_inference_steps=50, guidance_scale=5.0
            ),
            fps=24,
            dtypes=dict(vae="fp32"),
            parameters=dict(transformer=5000, text_encoder=5681, vae=705),
            held=dict(transformer=254, text_encoder=1050),
            token=(4, 32, 32),
            width=3072,
            licence="apache-2.0",
            scheduler="UniPC",
            note="The authors' own code uses shift 5.",
        ),
        # Sizes: docstrings of diffusers' WanPipeline and WanImageToVideoPipeline; shift: its documentation.
        replace(
            _WAN2_1_VACE_14B,
            name="wan2.1-t2v-14b",
            models=("Wan-AI/Wan2.1-T2V-14B-Diffusers",),
            pipelines=("WanPipeline", "WanVideoToVideoPipeline", "WanModularPipeline"),
            match=dict(transformer=dict(num_layers=40, in_channels=16)),
            parameters=dict(transformer=14288, text_encoder=5681, vae=127),
            held=dict(transformer=584, text_encoder=1050),
            scheduler="UniPC, flow_shift 3",
            note="Also renders 720 x 1280, for which flow_shift 5 suits better.",
        ),
        replace(
            _WAN2_1_VACE_14B,
            name="wan2.1-t2v-1.3b",
            models=("Wan-AI/Wan2.1-T2V-1.3B-Diffusers",),
            pipelines=("WanPipeline", "WanVideoToVideoPipeline", "WanModularPipeline"),
            match=dict(transformer=dict(num_layers=30, in_channels=16)),
            parameters=dict(transformer=1419, text_encoder=5681, vae=127),
            held=dict(transformer=72, text_encoder=1050),
            width=1536,
            download_gb=28.9,
            scheduler="UniPC, flow_shift 3",
            note="",
        ),
        # The configs of the two do not tell them apart.
        replace(
            _WAN2_1_VACE_14B,
            name="wan2.1-i2v-14b",
            models=("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"),
            inputs=("image",),
            pipelines=("WanImageToVideoPipeline", "WanImage2VideoModularPipeline"),
            match=dict(transformer=dict(num_layers=40, in_channels=36, image_dim=1280)),
            dtypes=dict(vae="fp32", image_encoder="fp32"),
            parameters=dict(transformer=16395, text_encoder=5681, image_encoder=631, vae=127),
            held=dict(transformer=645, text_encoder=1050),
            scheduler="UniPC, flow_shift 3",
            note=(
                "The 720P model renders 720 x 1280: give height and width. `max_sequence_length` stays 512."
            ),
        ),
        _WAN2_1_VACE_14B,
        replace(
            _WAN2_1_VACE_14B,
            name="wan2.1-vace-1.3b",
            models=("Wan-AI/Wan2.1-VACE-1.3B-diffusers",),
            match=dict(transformer=dict(num_layers=30, vace_in_channels=96)),
            parameters=dict(transformer=2154, text_encoder=5681, vae=127),
            held=dict(transformer=78, text_encoder=1050),
            width=1536,
            note="With a `video` clips have its shape, within height x width.",
        ),
        # Values of the call: signature and docstring of diffusers' WanAnimatePipeline.
        Preset(
            name="wan2.2-animate-14b",
            models=("Wan-AI/Wan2.2-Animate-14B-Diffusers",),
            inputs=("image",),
            pipelines=("WanAnimatePipeline",),
            match=dict(transformer=dict(num_layers=40, in_channels=36, motion_encoder_dim=512)),
            arguments=dict(
                height=720,
                width=1280,
                segment_frame_length=77,
                num_inference_steps=20,
                guidance_scale=1.0,
            ),
            fps=30,
            parameters=dict(transformer=17275, text_encoder=5681, image_encoder=632, vae=127),
            held=dict(transformer=686, text_encoder=1050),
            token=(4, 16, 16),
            width=5120,
            licence="apache-2.0",
            note=(
                "The image moves as `pose_video` and `face_video` do, and as long. "
                "Rows share forwards with `motion_encode_batch_size` 1."
            ),
        ),
        SHAPES_MODEL,
    ),
)
