"""What is not exact in company, not shared, or not supported, and why: by the name of the class."""

from __future__ import annotations

_EACH_FRAME = "prompts come once for each frame, and rows that differ in them cannot share"
REASONS = {
    "AllegroPipeline": "decodes with `vae_tiling: true` alone, and 24 frames or more",
    "AnimateDiffPipeline": _EACH_FRAME,
    "AnimateDiffSDXLPipeline": _EACH_FRAME,
    "AnimateDiffVideoToVideoPipeline": _EACH_FRAME,
    "AnyFlowFARPipeline": "its network writes each chunk into a cache of the row's own, which none can share",
    "ChronoEditPipeline": "renders 5 frames without `enable_temporal_reasoning`, whatever `num_frames` says",
    "EasyAnimatePipeline": "without `negative_prompt` diffusers itself fails",
    "HeliosPipeline": "clips longer than 129 frames come out up to four frames longer than asked",
    "HunyuanVideo15ImageToVideoPipeline": "the image sets the size; guidance is the folder's",
    "HunyuanVideo15Pipeline": "guidance is the folder's",
    "HunyuanVideoFramepackPipeline": "alone the text is cut off at its length, beside others it is masked, "
    "which rounds differently; clips are as long as windows make them",
    "LTX2ConditionPipeline": "`conditions` are objects that no cell holds",
    "LTXConditionPipeline": "`conditions` are objects that no cell holds: give `image`, or `video`",
    "LattePipeline": "renders as many frames as its network's `video_length` alone",
    "LucyEditPipeline": "clips are as long as the video; in bf16 it needs its autoencoder in fp32",
    "MotifVideoPipeline": "guidance is the folder's",
    "MotifVideoImage2VideoPipeline": "guidance is the folder's",
    "PIAPipeline": _EACH_FRAME,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": "in bf16 it needs its autoencoder in fp32",
    "WanAnimatePipeline": "shares with `motion_encode_batch_size` 1 alone: "
    "else faces of several rows are read in one batch",
    "WanVACEPipeline": "`mask` and `reference_images` are lists of images, which no cell holds; "
    "with a `video` clips have its shape",
}
# Tried, and why diffusers 0.42.1 or a table cannot do it.
NOT_RENDERED = {
    "ConsisIDPipeline": "starts from embeddings of a face, which models outside of diffusers make",
    "CosmosTextToWorldPipeline": "loads with the package cosmos_guardrail alone",
    "CosmosVideoToWorldPipeline": "loads with the package cosmos_guardrail alone",
    "Cosmos2VideoToWorldPipeline": "loads with the package cosmos_guardrail alone",
    "Cosmos2_5_PredictBasePipeline": "loads with the package cosmos_guardrail alone",
    "Cosmos2_5_TransferPipeline": "loads with the package cosmos_guardrail alone",
    "Cosmos2TextToImagePipeline": "loads with the package cosmos_guardrail alone",
    "EasyAnimateControlPipeline": "diffusers 0.42.1 itself fails: encode_prompt takes no text_encoder_index",
    "EasyAnimateInpaintPipeline": "takes `video` and `mask_video` as tensors alone",
}
