"""A model: where it is, what it is called with, its networks, and a renderer of it."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.memory import free_memory as free_memory, is_out_of_memory as is_out_of_memory
    from framefleet.pipeline.model.device_placement import Placer as Placer
    from framefleet.pipeline.model.load import load as load
    from framefleet.pipeline.model.model import (
        Model as Model,
        ModelSettings as ModelSettings,
        source_of as source_of,
        weights_of as weights_of,
    )
    from framefleet.pipeline.model.sources.integrity import model_digest as model_digest
    from framefleet.pipeline.model.sources.parts import by_component as by_component
    from framefleet.pipeline.model.sources.selection import SAFETENSORS as SAFETENSORS
    from framefleet.pipeline.model.specs.dtypes import (
        DType as DType,
        DTypeName as DTypeName,
        torch_dtype as torch_dtype,
    )
    from framefleet.pipeline.model.specs.model_index import is_denoiser as is_denoiser
    from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS as FRAME_PARAMETERS
    from framefleet.pipeline.model.specs.spec import (
        PipelineSpec as PipelineSpec,
        inspect_model as inspect_model,
    )
    from framefleet.pipeline.recipes.catalog import find_recipe as find_recipe
    from framefleet.pipeline.recipes.recipe import Recipe as Recipe
    from framefleet.pipeline.render.renderer import Renderer as Renderer
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
