"""One process, no Ray: from requests and a model folder to frames, media files and records.

Holds requests and their identity, the table, model loading, recipes, the forward batcher and its
exactness, the renderer, media, store and records. Imports neither `framefleet.cluster` nor
`framefleet.jobs`.
"""
