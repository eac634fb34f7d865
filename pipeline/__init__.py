"""One process, no Ray: from requests and a model folder to frames, media files and records.

Holds requests and their identity, the table, model loading, recipes, the forward batcher and its
exactness, the renderer, media, store and records. Imports neither `framefleet.cluster` nor
`framefleet.jobs`.
"""

if __name__ == "pipeline":  # from the root of a clone: a second copy, whose classes are not the first one's
    raise ImportError("import it as framefleet.pipeline")
