"""Training: rows of videos and prompts in, weights of a pipeline's parts out. One process, no Ray.

dataset/: from a table to batches. denoiser/, autoencoder.py, text_encoder.py: what can be trained, each a
`Task`. run.py and learner.py: the loop, which knows no more of a model. checkpoints.py and finish.py:
what is left in the output.
"""
