"""Optional features: each folder is a plugin, which extends the core through `framefleet.api`."""

if __name__ == "plugins":  # from the root of a clone: a second copy, whose classes are not the first one's
    raise ImportError("import it as framefleet.plugins")
