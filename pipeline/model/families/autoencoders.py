"""What autoencoders take and give that their configs do not say, by class: several families share one."""

# They take pictures, so a clip is a batch of them; the others take clips.
OF_PICTURES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder", "AutoencoderTiny", "AutoencoderDC")
# Their `decode` ends with a clamp to [-1, 1], and pixels beyond give no gradient.
CLAMPING = ("AutoencoderKLWan", "AutoencoderKLQwenImage")
# Their `decode` has to be given how many frames there are.
COUNTING = ("AutoencoderKLTemporalDecoder",)
# They pack all frames alike, where the others pack the first one alone.
PACKING_ALIKE = ("AutoencoderDCVideo",)
