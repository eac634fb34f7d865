"""Models that errors name as examples of what can do what another one cannot."""

FROM_IMAGE_TO_IMAGE = "DynamiCrafter, Open-Sora, or a Wan folder for first and last frames"
WITH_LAST_IMAGE = "a first-and-last-frame model, as Wan2.1-FLF2V"
IMAGES_FROM_TEXT = "black-forest-labs/FLUX.1-dev"
VIDEOS_FROM_TEXT = "a VideoCrafter2 folder"
ORIGINALS = "the original checkpoint of VideoCrafter or DynamiCrafter, or the folder of Open-Sora v2"
