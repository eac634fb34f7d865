"""AnimateDiff: a motion module beside Stable Diffusion 1.5."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput
from framefleet.pipeline.model.families.preset import Preset

ANIMATEDIFF = Family(
    prefix="AnimateDiff",
    default_size="config",
    frame_factor=0,
    fps=8,
    siblings=(
        Sibling(
            task="video_to_video", source="AnimateDiffPipeline", target="AnimateDiffVideoToVideoPipeline"
        ),
    ),
    training={"AnimateDiffPipeline": TrainingInput(layout="frame_by_frame")},
    presets=(
        Preset(
            name="animatediff",
            models=(),
            inputs=("text",),
            pipelines=("AnimateDiffPipeline",),
            match=dict(
                unet=dict(cross_attention_dim=768),
                motion_adapter=dict(motion_max_seq_length=32, block_out_channels=[320, 640, 1280, 1280]),
            ),
            arguments=dict(height=512, width=512, num_frames=16, num_inference_steps=50, guidance_scale=7.5),
            fps=8,
            dtype="fp16",
            parameters=dict(unet=1313, motion_adapter=453, text_encoder=123, vae=84),
            held=dict(unet=502),
            token=(1, 8, 8),
            width=320,
            joined=True,
            licence="the adapter's and the base model's",
            scheduler="DDIM, beta_schedule linear",
            note=(
                "Not one model of the hub: make a folder with `AnimateDiffPipeline.from_pretrained(BASE, "
                'motion_adapter=MotionAdapter.from_pretrained("guoyww/animatediff-motion-adapter-v1-5-2")).save_pretrained(FOLDER)`.'
            ),
        ),
    ),
)
