"""All cases by name, each with the outcome we expect."""

from __future__ import annotations

from tools.odd_recipes.case import ALL_ODD, Case
from tools.odd_recipes.strangers import STRANGERS

_JOB_LORAS = ("style", None, "style:0.5", "style", "detail:-0.7", "style:0.8 + detail")
_STYLE = ("style", "style:0.5", "style", "style:0.5", "style", "style")


_SCALES = (1.0, 0.5, 0.2, 1.0, 0.5, 0.0)  # the first is what is usual
_HALF = (0.5,) * 6


_CASES = (
    # LoRAs
    Case(
        recipe="adapters:scaled",
        name="adapters.scaled_by_row",
        expected="equal",
        odd=[1 - scale for scale in _SCALES],
        loras=_STYLE,
        cells=[{"scale": scale} for scale in _SCALES],
    ),
    Case(
        recipe="adapters:scaled",
        name="adapters.scaled_by_half",
        expected="equal",
        odd=ALL_ODD,
        loras=_JOB_LORAS,
        cells=[{"scale": scale} for scale in _HALF],
    ),
    Case(
        recipe="generate",
        name="adapters.scale_in_a_column",
        expected="invalid",
        reason="'cross_attention_kwargs' is an argument that a table cannot give",
        odd=ALL_ODD,
        loras=_STYLE,
        cells=[{"cross_attention_kwargs": {"scale": scale}} for scale in _SCALES],
    ),
    Case(recipe="adapters:weight_changed_on_the_way", expected="equal", loras=_STYLE),
    Case(recipe="adapters:weight_set_before", expected="equal", loras=_STYLE),
    Case(recipe="adapters:fused_and_left", expected="equal", leaves=True, loras=_STYLE),
    Case(recipe="adapters:fused_and_unfused", expected="equal", loras=_STYLE),
    Case(recipe="adapters:switched_off", expected="equal", loras=_JOB_LORAS),
    Case(recipe="adapters:loaded_and_unloaded", expected="equal"),
    Case(
        recipe="adapters:loaded_and_unloaded",
        name="adapters.loaded_and_unloaded_beside_the_jobs",
        expected="equal",
        loras=_JOB_LORAS,
    ),
    Case(recipe="adapters:textual_inversion", expected="equal"),
    # classes, functions and methods patched for the call
    Case(recipe="patches:scheduler_class", expected="equal"),
    Case(recipe="patches:scheduler_class_of_video", expected="equal", model="wan"),
    Case(recipe="patches:network_class", expected="equal"),
    Case(recipe="patches:function_of_torch", expected="equal"),
    Case(recipe="patches:function_of_diffusers", expected="equal"),
    Case(recipe="patches:class_left_patched", expected="equal", leaves=True),
    Case(recipe="patches:pipeline_class", expected="equal"),
    Case(recipe="patches:forward_of_the_denoiser", expected="equal"),
    Case(recipe="patches:decode_of_the_autoencoder", expected="equal"),
    Case(recipe="patches:step_of_its_scheduler", expected="batched"),
    Case(recipe="patches:functions_of_torch_by_a_mode", expected="equal"),
    # hooks
    Case(recipe="hooks:on_a_layer_of_the_encoder", expected="equal"),
    Case(recipe="hooks:on_the_second_encoder", expected="equal", model="sdxl"),
    Case(recipe="hooks:on_a_block_of_the_denoiser", expected="equal"),
    Case(recipe="hooks:on_a_block_of_the_transformer", expected="equal", model="wan"),
    Case(recipe="hooks:on_the_decoder", expected="equal"),
    Case(recipe="hooks:on_all_modules", expected="equal"),
    Case(recipe="hooks:left_on_the_encoder", expected="equal", leaves=True),
    Case(
        recipe="hooks:on_a_layer_of_the_encoder",
        name="hooks.on_an_encoder_whose_outputs_are_kept",
        expected="equal",
        keeps_embeddings=True,
    ),
    # weights, submodules, settings of networks
    Case(recipe="weights:encoder_by_data", expected="equal"),
    Case(recipe="weights:encoder_in_place_by_data", expected="equal"),
    Case(recipe="weights:encoder_without_gradients", expected="equal"),
    Case(recipe="weights:encoder_left", expected="equal", leaves=True),
    Case(
        recipe="weights:encoder_in_place_by_data",
        name="weights.encoder_whose_outputs_are_kept",
        expected="equal",
        keeps_embeddings=True,
    ),
    Case(
        recipe="weights:encoder_left",
        name="weights.encoder_left_whose_outputs_are_kept",
        expected="equal",
        leaves=True,
        keeps_embeddings=True,
    ),
    Case(recipe="weights:denoiser_for_the_call", expected="equal"),
    Case(recipe="weights:denoiser_on_the_way", expected="equal"),
    Case(recipe="weights:decoder_left", expected="equal", leaves=True),
    Case(recipe="weights:submodule_replaced", expected="equal"),
    Case(recipe="weights:parameter_replaced", expected="equal"),
    Case(recipe="weights:own_denoiser", expected="equal"),
    Case(recipe="weights:scale_in_the_config", expected="equal"),
    Case(recipe="weights:dtype_for_the_call", expected="equal"),
    Case(recipe="weights:freeu", expected="equal"),
    Case(recipe="weights:blocks_skipped", expected="equal", model="wan"),
    # attention
    Case(recipe="attention:processor_set", expected="equal"),
    Case(recipe="attention:scale_of_processors", expected="equal"),
    Case(recipe="attention:attribute_of_attention", expected="equal"),
    Case(recipe="attention:backend", expected="equal", model="wan", odd=(0.0, 0.0, 0.0, 0.6, 0.3, -0.4)),
    # how torch computes
    Case(recipe="modes:autocast", expected="equal"),
    Case(recipe="modes:default_dtype", expected="equal"),
    Case(recipe="modes:inference_mode", expected="equal"),
    Case(recipe="modes:gradients_of_a_callback", expected="batched"),
    Case(recipe="modes:gradients_of_the_recipe", expected="equal"),
    Case(recipe="modes:gradients_through_the_denoiser", expected="equal"),
    Case(recipe="modes:gradients_left_off", expected="equal", is_invisible=True),
    Case(recipe="modes:deterministic_left", expected="equal", leaves=True, is_invisible=True),
    Case(recipe="modes:threads", expected="equal", odd=(0, 0, 0, 0, 0.3, 0.6), is_invisible=True),
    # the flow of calls
    Case(recipe="calls:latents_passed_on", expected="batched"),
    Case(recipe="calls:other_pipeline", expected="batched"),
    Case(recipe="calls:early_stop", expected="batched"),
    Case(recipe="calls:guidance_on_the_way", expected="batched"),
    Case(recipe="calls:retried_inside", expected="batched"),
    Case(recipe="calls:recursion", expected="batched"),
    Case(recipe="calls:failing", expected="fails"),
    Case(recipe="calls:in_a_thread", expected="equal"),
    Case(recipe="calls:own_generators", expected="batched"),
    Case(recipe="calls:sub_batches", expected="batched"),
    Case(recipe="calls:tuned_afterwards", expected="batched"),
    Case(recipe="calls:scheduler_replaced", expected="batched"),
    Case(recipe="calls:scheduler_changed_in_place", expected="batched"),
    Case(recipe="calls:scheduler_config_changed", expected="batched"),
    Case(recipe="calls:tokenizer_changed", expected="equal", leaves=True),
    Case(recipe="calls:remembered_texts", expected="batched"),
    Case(recipe="calls:first_of_all", expected="equal", leaves=True),
    Case(recipe="calls:remembered_and_changed", expected="equal", leaves=True),
    # what a module keeps
    Case(recipe="keeps:counted", expected="equal", leaves=True),
    Case(recipe="keeps:default_argument", expected="equal", leaves=True),
    Case(recipe="keeps:attribute_of_a_function", expected="equal", leaves=True),
    Case(recipe="keeps:generators_of_the_module", expected="equal", leaves=True),
)
CASES = {str(case): case for case in (*_CASES, *STRANGERS)}
