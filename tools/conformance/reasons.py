"""What is not exact in a batch, not shared, or not supported, and why: by the name of the class."""

from __future__ import annotations

_EACH_FRAME = "prompts come once for each frame, and rows that differ in them cannot share"
_IN_BF16 = "diffusers itself fails in bf16"
_MARKS = "images have no watermark: diffusers puts it only on PIL images, not on arrays"
_ONE_SHAPE = "image and mask must have the same shape"
_NO_DENOISER = "has no denoiser, and only denoisers' forwards are shared"
_ONE_SEQUENCE = "its network reads text, frames and sound of one row as one sequence, without a batch"
_ACTION = "`action` is an object, which a table cell cannot contain"
_OWN_ATTENTION = "a call puts its own attention into the network, so no other row may run meanwhile"
_NORMALIZER = "a call changes its image_normalizer, so no other row may run meanwhile"
_SHAPES = "the rows measured share no forward: their pictures differ in shape"
REASONS = {
    "AllegroPipeline": "decodes only with `vae_tiling: true`, and at least 24 frames",
    "AnimateDiffControlNetPipeline": _EACH_FRAME,
    "AnimateDiffSparseControlNetPipeline": _EACH_FRAME,
    "AnimateDiffVideoToVideoControlNetPipeline": _EACH_FRAME,
    "AnimateDiffPAGPipeline": f"{_EACH_FRAME}; {_OWN_ATTENTION}",
    "AnimateDiffPipeline": _EACH_FRAME,
    "AnimateDiffSDXLPipeline": _EACH_FRAME,
    "AnimateDiffVideoToVideoPipeline": _EACH_FRAME,
    "AnyFlowFARPipeline": "its network writes each chunk into a cache of the row's own, which none can share",
    "ChronoEditPipeline": "renders 5 frames without `enable_temporal_reasoning`, whatever `num_frames` says",
    "ConsistencyModelPipeline": _IN_BF16,
    "Cosmos2_5_PredictBasePipeline": "continues the end of `video`: its last five frames, or the last",
    "Cosmos2_5_TransferPipeline": "clips are as long as `controls`, or as `num_frames` if that is less",
    "Cosmos3DistilledModularPipeline": f"{_ONE_SEQUENCE}; steps and guidance are set in the folder",
    "Cosmos3OmniModularPipeline": f"{_ONE_SEQUENCE}; {_ACTION}",
    "Cosmos3OmniPipeline": f"{_ONE_SEQUENCE}; {_ACTION}",
    "DDIMPipeline": _IN_BF16,
    "DDPMPipeline": _IN_BF16,
    "EasyAnimatePipeline": "without `negative_prompt` diffusers itself fails",
    "GlmImagePipeline": "`image` does not work: diffusers 0.42.1 fails on it with transformers 5.23",
    "HeliosPipeline": "clips longer than 129 frames come out up to four frames longer than asked",
    "HunyuanDiTPAGPipeline": f"{_OWN_ATTENTION}; diffusers itself fails without guidance",
    "HunyuanImagePipeline": "guidance is set in the model's folder",
    "HunyuanVideo15ImageToVideoPipeline": "the image sets the size; guidance is set in the model's folder",
    "HunyuanVideo15Pipeline": "guidance is set in the model's folder",
    "HunyuanVideoFramepackPipeline": "alone the text is cut off at its length, in a batch it is masked, "
    "which rounds differently; clips are as long as windows make them",
    "IFImg2ImgPipeline": _MARKS,
    "IFImg2ImgSuperResolutionPipeline": _MARKS,
    "IFInpaintingPipeline": f"{_ONE_SHAPE}; {_MARKS}",
    "IFInpaintingSuperResolutionPipeline": f"{_ONE_SHAPE}; {_MARKS}",
    "IFPipeline": _MARKS,
    "IFSuperResolutionPipeline": _MARKS,
    "JoyImageEditPlusPipeline": _SHAPES,
    "Kandinsky5I2IPipeline": _SHAPES,
    "LongCatImageEditPipeline": _SHAPES,
    "KandinskyImg2ImgCombinedPipeline": "diffusers itself fails where height and width differ",
    "KolorsPAGPipeline": _OWN_ATTENTION,
    "LDMSuperResolutionPipeline": f"{_IN_BF16}; images are cut to multiples of 32 pixels: smaller ones fail",
    "LDMTextToImagePipeline": _IN_BF16,
    "LTX2ConditionPipeline": "`conditions` are objects, which a table cell cannot contain",
    "LTX2DFRPipeline": "`conditions` and latents of keyframes are objects, which a table cell cannot contain",
    "LTX2InContextPipeline": "`reference_conditions` and `conditions` are objects, which a table cell cannot "
    "contain",
    "EchoModularPipeline": "its memory takes only pictures: sounds are tensors, which a table cell cannot "
    "contain",
    "LTX2LatentUpsamplePipeline": _NO_DENOISER,
    "LTXLatentUpsamplePipeline": _NO_DENOISER,
    "LTXConditionPipeline": "`conditions` are objects, which a table cell cannot contain: give `image`, or "
    "`video`",
    "LattePipeline": "renders only as many frames as its network's `video_length`",
    "LucyEditPipeline": "clips are as long as the video; in bf16 it needs its autoencoder in fp32",
    "MotifVideoImage2VideoPipeline": "guidance is set in the model's folder",
    "MotifVideoPipeline": "guidance is set in the model's folder",
    "PIAPipeline": _EACH_FRAME,
    "PixArtSigmaPAGPipeline": _OWN_ATTENTION,
    "QwenImageEditModularPipeline": _SHAPES,
    "QwenImageEditInpaintPipeline": "renders a megapixel in the shape of `image`, "
    "whatever `height` and `width`",
    "SanaWMPipeline": "1 of 16 rows measured differs from its plain call, and why is not known yet: use "
    "`batching: {max_rows: 1}`",
    "SanaPAGPipeline": _OWN_ATTENTION,
    "KarrasVePipeline": _IN_BF16,
    "RePaintPipeline": _IN_BF16,
    "ScoreSdeVePipeline": _IN_BF16,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": "in bf16 it needs its autoencoder in fp32",
    "StableDiffusion3PAGImg2ImgPipeline": _OWN_ATTENTION,
    "StableDiffusion3PAGPipeline": _OWN_ATTENTION,
    "StableDiffusionControlNetPAGInpaintPipeline": _OWN_ATTENTION,
    "StableDiffusionControlNetPAGPipeline": _OWN_ATTENTION,
    "StableDiffusionPAGImg2ImgPipeline": _OWN_ATTENTION,
    "StableDiffusionPAGInpaintPipeline": f"{_OWN_ATTENTION}; diffusers itself fails with `guidance_rescale`",
    "StableDiffusionPAGPipeline": _OWN_ATTENTION,
    "StableDiffusionAttendAndExcitePipeline": _OWN_ATTENTION,
    "StableDiffusionSAGPipeline": _OWN_ATTENTION,
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": _OWN_ATTENTION,
    "StableDiffusionXLControlNetPAGPipeline": _OWN_ATTENTION,
    "StableDiffusionXLPAGImg2ImgPipeline": _OWN_ATTENTION,
    "StableDiffusionXLPAGInpaintPipeline": _OWN_ATTENTION,
    "StableDiffusionXLPAGPipeline": _OWN_ATTENTION,
    "StableUnCLIPImg2ImgPipeline": _NORMALIZER,
    "StableUnCLIPPipeline": _NORMALIZER,
    "TextToVideoZeroPipeline": f"{_OWN_ATTENTION}; diffusers itself fails without guidance",
    "TextToVideoZeroSDXLPipeline": _OWN_ATTENTION,
    "UniDiffuserPipeline": "renders only its network's size",
    "VersatileDiffusionImageVariationPipeline": "only networks that are called unet, transformer or so share "
    "forwards, and this one's is image_unet",
    "WanAnimatePipeline": "shares only with `motion_encode_batch_size` 1: "
    "otherwise faces of several rows are read in one batch",
    "WanVACEPipeline": "with a `video` clips have its shape",
}
_EMBEDDED = "starts from embeddings, which a table cell cannot contain; its combined class makes them itself"
_HINTED = "starts from embeddings and a `hint`: tensors, which a table cell cannot contain"
_PRIOR = "makes embeddings for another pipeline, and framefleet renders frames or sound"
_HEARD = "needs `audio`: a tensor, which a table cell cannot contain"
_GRID = "needs `image`: lists of lists of pictures, which a table cell cannot contain"
_BOXES = "needs `gligen_boxes`: a list of lists, which a table cell cannot contain"
_TEXTS = "writes text, and framefleet renders frames or sound"
# Classes, and the part that their published folders name, but diffusers 0.42.1 does not find any more: it has
# moved it. A test looks whether a later diffusers finds it again.
LOST_PARTS = {
    "AltDiffusionImg2ImgPipeline": "RobertaSeriesModelWithTransformation",
    "AltDiffusionPipeline": "RobertaSeriesModelWithTransformation",
    "BlipDiffusionControlNetPipeline": "ContextCLIPTextModel",
    "BlipDiffusionPipeline": "ContextCLIPTextModel",
    "PaintByExamplePipeline": "PaintByExampleImageEncoder",
    "StableCascadeCombinedPipeline": "PaellaVQModel",
    "UnCLIPImageVariationPipeline": "UnCLIPTextProjModel",
    "UnCLIPPipeline": "UnCLIPTextProjModel",
    "VQDiffusionPipeline": "LearnedClassifierFreeSamplingEmbeddings",
    "VersatileDiffusionDualGuidedPipeline": "UNetFlatConditionModel",
    "VersatileDiffusionTextToImagePipeline": "UNetFlatConditionModel",
    "WuerstchenCombinedPipeline": "PaellaVQModel",
}
# Tried, and why diffusers 0.42.1 or a table cannot do it.
NOT_RENDERED = {
    name: f"diffusers 0.42.1 itself cannot load it: it no longer finds the class {part} of one of its parts"
    for name, part in LOST_PARTS.items()
} | {
    "VersatileDiffusionPipeline": "has no call of its own, only those of the classes that it is made of",
    "StableDiffusionGLIGENPipeline": _BOXES,
    "StableDiffusionGLIGENTextImagePipeline": _BOXES,
    "StableDiffusionDiffEditPipeline": "needs `image_latents`: tensors, which a table cell cannot contain",
    "StableDiffusionPix2PixZeroPipeline": "needs `source_embeds` and `target_embeds`: tensors, which a table "
    "cell cannot contain",
    "I2VGenXLPipeline": "diffusers 0.42.1 itself fails with transformers 5, whose CLIP has no text_model",
    "LongCatAudioDiTPipeline": "diffusers 0.42.1 itself does not save its scheduler, which its index names",
    "OmniGenPipeline": "needs the package torchvision",
    "StableAudio3AudioToAudioPipeline": _HEARD,
    "StableAudio3InpaintPipeline": _HEARD,
    "VisualClozeGenerationPipeline": _GRID,
    "VisualClozePipeline": _GRID,
    "DanceDiffusionPipeline": "its call takes no `output_type`, which framefleet sets",
    "DiffusionGemmaPipeline": _TEXTS,
    "LLaDA2Pipeline": _TEXTS,
    "RFD4ProteinaPipeline": "makes proteins, and framefleet renders frames or sound",
    "FluxPriorReduxPipeline": _PRIOR,
    "KandinskyPriorPipeline": _PRIOR,
    "KandinskyV22PriorEmb2EmbPipeline": _PRIOR,
    "KandinskyV22PriorPipeline": _PRIOR,
    "StableCascadePriorPipeline": _PRIOR,
    "WuerstchenPriorPipeline": _PRIOR,
    "StableCascadeDecoderPipeline": _EMBEDDED,
    "WuerstchenDecoderPipeline": _EMBEDDED,
    "LTX2DFRTemporalRefinePipeline": "starts from latents, which a table cell cannot contain",
    "MiniMaxMusic3ModularPipeline": "is modular, and makes only sound",
    "ChromaInpaintPipeline": "diffusers 0.42.1 itself fails: its network's config has no guidance_embeds",
    "ConsisIDPipeline": "starts from embeddings of a face, which models outside of diffusers make",
    "EasyAnimateControlPipeline": "diffusers 0.42.1 itself fails: encode_prompt takes no text_encoder_index",
    "EasyAnimateInpaintPipeline": "takes `video` and `mask_video` only as tensors",
    "KandinskyImg2ImgPipeline": _EMBEDDED,
    "KandinskyInpaintPipeline": _EMBEDDED,
    "KandinskyPipeline": _EMBEDDED,
    "KandinskyV22ControlnetImg2ImgPipeline": _HINTED,
    "KandinskyV22ControlnetPipeline": _HINTED,
    "KandinskyV22Img2ImgPipeline": _EMBEDDED,
    "KandinskyV22InpaintPipeline": _EMBEDDED,
    "KandinskyV22Pipeline": _EMBEDDED,
    "LTX2VideoDiffusionDecodePipeline": "starts from latents, which a table cell cannot contain",
    "MusicLDMPipeline": "diffusers 0.42.1 itself fails with transformers 5, "
    "whose text encoder no longer returns a tensor",
}
