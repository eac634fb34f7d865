"""The tiny pipelines of image classes: how each is built, its smallest call, and what it starts from.

Those of sound from spectrograms too. Beside those of `tests/tinies/image.py`, which other tests name.
"""

from __future__ import annotations

from tests.tinies import (
    adapters,
    amused,
    controlled,
    deepfloyd,
    flux2,
    flux_kin,
    glm,
    hunyuan_dit,
    image,
    image_edits,
    image_transformers,
    kandinsky_images,
    latent_audio,
    modular_kin,
    perturbed,
    picture_maps,
    qwen_2_1,
    qwen_image,
    qwen_kin,
    sana,
    stable_diffusion_kin,
    untexted,
    z_image,
    z_image_controlled,
    z_image_kin,
)
from tests.tinies.table import EDIT as _EDIT
from tests.tinies.table import IMAGE as _IMAGE
from tests.tinies.table import LARGER as _LARGER
from tests.tinies.table import Tinies

_CHAT = _LARGER | {"max_sequence_length": 256}  # room for what is written around a prompt
_LARGEST = {"height": 128, "width": 128, "num_inference_steps": 2}
_MAPS = {"num_inference_steps": 2, "processing_resolution": 16}
_TINIES: Tinies = {
    "sd_img2img": (image_edits.sd_img2img, {"num_inference_steps": 2, "strength": 0.5}, ("image",)),
    "sd_inpaint": (image_edits.sd_inpaint, _EDIT, ("image", "mask_image")),
    "instruct_pix2pix": (image_edits.instruct_pix2pix, {"num_inference_steps": 2}, ("image",)),
    "sdxl_img2img": (image_edits.sdxl_img2img, {"num_inference_steps": 2, "strength": 0.5}, ("image",)),
    "sdxl_inpaint": (image_edits.sdxl_inpaint, _EDIT, ("image", "mask_image")),
    "sd3_img2img": (image_edits.sd3_img2img, _EDIT, ("image",)),
    "sd3_inpaint": (image_edits.sd3_inpaint, _EDIT, ("image", "mask_image")),
    "lcm": (image_edits.lcm, _IMAGE, ()),
    "lcm_img2img": (image_edits.lcm_img2img, {"num_inference_steps": 2, "strength": 0.5}, ("image",)),
    "flux_schnell": (flux_kin.flux_schnell, _LARGER, ()),
    "flux_img2img": (flux_kin.flux_img2img, _LARGER | {"strength": 0.5}, ("image",)),
    "flux_inpaint": (flux_kin.flux_inpaint, _LARGER | {"strength": 0.5}, ("image", "mask_image")),
    "flux_kontext": (flux_kin.flux_kontext, _LARGER | {"max_area": 1024, "_auto_resize": False}, ("image",)),
    "flux_fill": (flux_kin.flux_fill, _LARGER, ("image", "mask_image")),
    "flux_control": (flux_kin.flux_control, _LARGER, ("control_image",)),
    "flux_control_img2img": (
        flux_kin.flux_control_img2img,
        _LARGER | {"strength": 0.5},
        ("image", "control_image"),
    ),
    "chroma": (flux_kin.chroma, _LARGER, ()),
    "chroma_img2img": (flux_kin.chroma_img2img, _LARGER | {"strength": 0.5}, ("image",)),
    "bria": (flux_kin.bria, _LARGER, ()),
    "ovis": (flux_kin.ovis, _CHAT, ()),
    "flux2": (flux2.flux2, _CHAT, ()),
    "flux2_klein": (flux2.flux2_klein, _CHAT, ()),
    "flux2_klein_base": (flux2.flux2_klein_base, _CHAT, ()),
    "flux2_klein_inpaint": (
        flux2.flux2_klein_inpaint,
        {"num_inference_steps": 2, "strength": 0.5, "max_sequence_length": 256},  # the picture's size
        ("image", "mask_image"),
    ),
    "ernie": (flux2.ernie, _LARGER, ()),
    "pixart_alpha": (image_transformers.pixart_alpha, _IMAGE | {"use_resolution_binning": False}, ()),
    "pixart_sigma": (image_transformers.pixart_sigma, _IMAGE | {"use_resolution_binning": False}, ()),
    "aura_flow": (image_transformers.aura_flow, _IMAGE, ()),
    "cogview3": (image_transformers.cogview3, _IMAGE, ()),
    "cogview4": (image_transformers.cogview4, _IMAGE, ()),
    "lumina2": (image_transformers.lumina2, _IMAGE, ()),
    "prx": (image_transformers.prx, _IMAGE | {"use_resolution_binning": False}, ()),
    "hidream": (
        image_transformers.hidream,
        _LARGEST | {"max_sequence_length": 64},
        (),
    ),
    "sana": (sana.sana, _LARGER | {"use_resolution_binning": False}, ()),
    "sana_sprint": (sana.sana_sprint, _LARGER | {"use_resolution_binning": False}, ()),
    "sana_sprint_img2img": (
        sana.sana_sprint_img2img,
        _LARGER | {"use_resolution_binning": False, "strength": 0.5},
        ("image",),
    ),
    "qwen_img2img": (qwen_kin.qwen_img2img, _CHAT | {"strength": 0.5}, ("image",)),
    "qwen_inpaint": (qwen_kin.qwen_inpaint, _CHAT | {"strength": 0.5}, ("image", "mask_image")),
    "qwen_edit": (qwen_kin.qwen_edit, _CHAT | _LARGEST, ("image",)),
    "qwen_edit_inpaint": (
        qwen_kin.qwen_edit_inpaint,
        _CHAT | _LARGEST | {"strength": 0.5},
        ("image", "mask_image"),
    ),
    "qwen_edit_plus": (qwen_kin.qwen_edit_plus, _CHAT | _LARGEST, ("image",)),
    "qwen_2_1": (qwen_2_1.qwen_2_1, _LARGER, ()),
    "glm_image": (glm.glm_image, _LARGER, ()),
    "krea2": (qwen_kin.krea2, _CHAT, ()),
    "krea2_turbo": (qwen_kin.krea2_turbo, _CHAT, ()),
    "nucleus": (qwen_kin.nucleus, _LARGER | {"max_sequence_length": 1024}, ()),
    "longcat": (qwen_kin.longcat, _LARGER | {"enable_prompt_rewrite": False}, ()),
    "qwen_image": (qwen_image.qwen_image, _LARGER, ()),
    "z_image": (z_image.z_image, _LARGER, ()),
    "z_image_img2img": (z_image_kin.z_image_img2img, _EDIT, ("image",)),
    "z_image_inpaint": (z_image_kin.z_image_inpaint, _EDIT, ("image", "mask_image")),
    "z_image_controlnet": (z_image_controlled.z_image_controlnet, _IMAGE, ("control_image",)),
    "z_image_controlnet_inpaint": (
        z_image_controlled.z_image_controlnet_inpaint,
        _IMAGE,
        ("image", "mask_image", "control_image"),
    ),
    "sd_controlnet": (controlled.sd_controlnet, _IMAGE, ("image",)),
    "sd_controlnets": (controlled.sd_controlnets, _IMAGE, ("image",)),
    "sd_controlnet_img2img": (controlled.sd_controlnet_img2img, _EDIT, ("image", "control_image")),
    "sd_controlnet_inpaint": (
        controlled.sd_controlnet_inpaint,
        _EDIT,
        ("image", "mask_image", "control_image"),
    ),
    "sdxl_controlnet": (controlled.sdxl_controlnet, _IMAGE, ("image",)),
    "sdxl_controlnet_img2img": (controlled.sdxl_controlnet_img2img, _EDIT, ("image", "control_image")),
    "sdxl_instruct_pix2pix": (controlled.sdxl_instruct_pix2pix, _IMAGE, ("image",)),
    "sd_pag": (controlled.sd_pag, _IMAGE, ()),
    "sd_pag_img2img": (
        controlled.sd_pag_img2img,
        {"num_inference_steps": 2, "strength": 0.5},
        ("image",),
    ),
    "sdxl_pag": (controlled.sdxl_pag, _IMAGE, ()),
    "sd3_pag": (controlled.sd3_pag, _IMAGE, ()),
    "pixart_sigma_pag": (
        image_transformers.pixart_sigma_pag,
        _IMAGE | {"use_resolution_binning": False},
        (),
    ),
    "sana_pag": (sana.sana_pag, _LARGER | {"use_resolution_binning": False}, ()),
    "sana_controlnet": (
        sana.sana_controlnet,
        _LARGER | {"use_resolution_binning": False},
        ("control_image",),
    ),
    "flux_control_inpaint": (
        flux_kin.flux_control_inpaint,
        _LARGER | {"strength": 0.5},
        ("image", "control_image", "mask_image"),
    ),
    "flux_controlnet": (flux_kin.flux_controlnet, _LARGER, ("control_image",)),
    "flux_controlnet_img2img": (
        flux_kin.flux_controlnet_img2img,
        _LARGER | {"strength": 0.5},
        ("image", "control_image"),
    ),
    "flux_controlnet_inpaint": (
        flux_kin.flux_controlnet_inpaint,
        _LARGER | {"strength": 0.5},
        ("image", "mask_image", "control_image"),
    ),
    "flux_kontext_inpaint": (
        flux_kin.flux_kontext_inpaint,
        _LARGER | {"max_area": 1024, "_auto_resize": False},
        ("image", "mask_image"),
    ),
    "flux2_klein_kv": (flux2.flux2_klein_kv, _CHAT, ()),
    "qwen_controlnet": (qwen_kin.qwen_controlnet, _CHAT, ("control_image",)),
    "qwen_controlnet_inpaint": (
        qwen_kin.qwen_controlnet_inpaint,
        _CHAT,
        ("control_image", "control_mask"),
    ),
    "cogview4_control": (image_transformers.cogview4_control, _IMAGE, ("control_image",)),
    "prx_pixel": (image_transformers.prx_pixel, _IMAGE | {"use_resolution_binning": False}, ()),
    "lumina": (image_transformers.lumina, _IMAGE, ()),
    "amused": (amused.amused, _IMAGE, ()),
    "amused_img2img": (amused.amused_img2img, {"num_inference_steps": 2, "strength": 0.5}, ("image",)),
    "amused_inpaint": (
        amused.amused_inpaint,
        {"num_inference_steps": 2, "strength": 0.5},
        ("image", "mask_image"),
    ),
    "ldm3d": (picture_maps.ldm3d, _IMAGE, ()),
    "ldm3d_rgb": (picture_maps.ldm3d_rgb, _IMAGE, ()),
    "marigold_depth": (picture_maps.marigold_depth, _MAPS, ("image",)),
    "marigold_normals": (picture_maps.marigold_normals, _MAPS, ("image",)),
    "marigold_intrinsics": (picture_maps.marigold_intrinsics, _MAPS, ("image",)),
    "hunyuan_image": (image.hunyuan_image, _LARGER, ()),
    "hunyuan_image_refiner": (image.hunyuan_image_refiner, _LARGER, ("image",)),
    **adapters.TINIES,
    **deepfloyd.TINIES,
    **hunyuan_dit.TINIES,
    **kandinsky_images.TINIES,
    **latent_audio.TINIES,
    **perturbed.TINIES,
    **stable_diffusion_kin.TINIES,
    **untexted.TINIES,
    **modular_kin.TINIES,
}

BUILDERS = {name: build for name, (build, _, _) in _TINIES.items()}
SMALLEST = {name: call for name, (_, call, _) in _TINIES.items()}
INPUTS = {name: dict.fromkeys(inputs, 1) for name, (_, _, inputs) in _TINIES.items() if inputs}
INPUTS["wan_animate_2_distilled"] = {"image": 1, "driving_video": 9}
INPUTS["sd_controlnets"] = {"image": 2}  # a list of two, as each ControlNet takes one
