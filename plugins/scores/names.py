"""Names of the built-in scores, which are columns of records."""

SIMILARITY = "similarity"
WITHOUT_MODEL = ("sharpness", "motion", "flicker", "is_black", "is_static", "num_torn_frames", "text")
BY_MODEL = {
    SIMILARITY: "{similarity: /models/clip}",
    "aesthetic": "{aesthetic: /models/head.safetensors, clip: /models/clip-vit-large-patch14}",
    "nsfw": "{nsfw: /models/nsfw}",
}
