"""Kandinsky 5 and 6: from text and from an image, 6 with sound.

Of Kandinsky 5, values of the calls: the docstrings of diffusers' Kandinsky5T2VPipeline and
Kandinsky5I2VPipeline. Configs: github.com/kandinskylab/kandinsky-5 configs/config_5s_sft.yaml and
config_5s_i2v_pro_20b.yaml, `dit_params`.
"""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset

_LITE = Preset(
    name="kandinsky-5-lite",
    models=(
        "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers",
        "kandinskylab/Kandinsky-5.0-I2V-Lite-5s-Diffusers",
    ),
    inputs=("text", "image"),
    pipelines=("Kandinsky5T2VPipeline", "Kandinsky5I2VPipeline"),
    match=dict(transformer=dict(model_dim=1792, num_visual_blocks=32, in_visual_dim=16)),
    arguments=dict(height=512, width=768, num_frames=121, num_inference_steps=50, guidance_scale=5.0),
    parameters=dict(transformer=2008, text_encoder=8292, text_encoder_2=123, vae=246),
    held=dict(transformer=70, text_encoder=545),
    token=(4, 16, 16),
    width=1792,
    licence="mit",
    note="Distilled ones take 16 steps: give them.",
)

KANDINSKY = Family(
    prefix="Kandinsky5",
    fps=24,
    sends=(),
    presets=(
        _LITE,
        replace(
            _LITE,
            name="kandinsky-5-pro",
            models=(
                "kandinskylab/Kandinsky-5.0-T2V-Pro-sft-5s-Diffusers",
                "kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers",
            ),
            match=dict(transformer=dict(model_dim=4096, num_visual_blocks=60, in_visual_dim=16)),
            parameters=dict(transformer=19311, text_encoder=8292, text_encoder_2=123, vae=246),
            held=dict(transformer=336, text_encoder=545),
            width=4096,
            note="",
        ),
    ),
)

# Values of the calls: diffusers' documentation of Kandinsky 6, and the docstring of Kandinsky6TI2VAPipeline.
# Config: github.com/kandinskylab/kandinsky-6 comfyui, DIT_CONFIG.
_PRO = Preset(
    name="kandinsky-6-pro",
    models=("kandinskylab/Kandinsky-6.0-Pro-sft-5s-Diffusers",),
    inputs=("text", "image"),
    pipelines=("Kandinsky6TI2VAPipeline",),
    match=dict(transformer=dict(model_dim=4096, num_visual_blocks=60, in_visual_dim=16)),
    arguments=dict(height=480, width=864, num_frames=121, num_inference_steps=50, guidance_scale=5.0),
    parameters=dict(transformer=30136, text_encoder=8292, text_encoder_2=123, vae=246),
    held=dict(transformer=528, text_encoder=545),
    token=(4, 16, 16),
    width=4096,
    licence="see its card",
    note="Makes sound too, whose autoencoder is not counted.",
)
KANDINSKY_6 = Family(
    prefix="Kandinsky6",
    fps=24,
    sends=(),
    presets=(
        replace(
            _PRO,
            name="kandinsky-6-pro-distill",
            models=("kandinskylab/Kandinsky-6.0-Pro-distill-5s-Diffusers",),
            match={**_PRO.match, "scheduler": dict(_class_name="PiflowScheduler")},
            arguments={**_PRO.arguments, "num_inference_steps": 16, "guidance_scale": 1.0},
            scheduler="Piflow",
            note="Distilled: guidance 1. Makes sound too, whose autoencoder is not counted.",
        ),
        _PRO,
    ),
)
