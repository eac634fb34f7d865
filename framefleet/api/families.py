"""Facts about a family of models that its configs do not have."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.model.families.family import (
        Family as Family,
        LatentLayout as LatentLayout,
        Preset as Preset,
        TrainingInput as TrainingInput,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
