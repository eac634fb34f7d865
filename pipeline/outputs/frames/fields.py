"""The fields of diffusers' outputs with frames, maps of a picture, and sound. Imports no NumPy."""

VIDEO_FIELDS = ("frames", "video")
IMAGES = ("images", "image", "rgb")  # their first dimension is a batch
# If there are no frames, a clip shows a picture of one of these; they are stored next to it in any case.
MAPS = ("prediction", "depth", "normals")
PICTURES = (*VIDEO_FIELDS, *IMAGES)
SOUND = ("audio", "audios", "sound")
