"""Pipelines and networks that diffusers lacks; `registry` names them."""
