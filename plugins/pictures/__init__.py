"""Pictures of clips with captions in any script, for every plugin that draws some."""
