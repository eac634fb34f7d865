"""What outputs of diffusers call frames, maps of a picture, and sound. Imports no NumPy."""

VIDEO_FIELDS = ("frames", "video")
IMAGES = ("images", "image", "rgb")  # of these the first dimension is a batch
# Of these a clip shows a picture where there are no frames; they are kept next to it in any case.
MAPS = ("prediction", "depth", "normals")
PICTURES = (*VIDEO_FIELDS, *IMAGES)
SOUND = ("audio", "audios", "sound")
