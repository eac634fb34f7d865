"""Why a class is not exact in company, or shares no forwards, where it is so: by the name of the class."""

from __future__ import annotations

REASONS = {
    "AnimateDiffPipeline": "prompts come once for each frame, and rows that differ in them cannot share",
}
