"""From a short name to diffusers' scheduler class and config changes, as data; and what each class can do.

Every entry was rendered on tiny pipelines, and its clips converge to the model's own as steps grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KARRAS = {"use_karras_sigmas": True}

SHORT_NAMES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cogvideox_ddim": ("CogVideoXDDIMScheduler", {}),
    "cogvideox_dpm": ("CogVideoXDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm2_karras": ("KDPM2DiscreteScheduler", _KARRAS),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", _KARRAS),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"} | _KARRAS),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}),
    "dpmpp_sde": ("DPMSolverSDEScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", _KARRAS),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": False}),
    "flow_heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun_karras": ("HeunDiscreteScheduler", _KARRAS),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "lms_karras": ("LMSDiscreteScheduler", _KARRAS),
    "pndm": ("PNDMScheduler", {}),
    "sa_solver": ("SASolverScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc_karras": ("UniPCMultistepScheduler", _KARRAS),
}

# Solvers that also integrate flow-matching models, as stated by their config.
FLOW_SOLVERS = frozenset(
    {
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "UniPCMultistepScheduler",
    }
)
FLOW_MATCHING = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
FLOW_NAMES = ("FlowMatch", "LTXEuler")  # what the names of classes for such models start with

# They assert `use_dynamic_shifting` when a pipeline hands them `mu` (UniPC takes it either way).
MU_ONLY_DYNAMIC = FLOW_SOLVERS - {"UniPCMultistepScheduler"}

# diffusers' KarrasDiffusionSchedulers and three more that step the same models; not EDMEuler, which is made
# for another parametrisation and does not converge.
DIFFUSION = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverSDEScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
        "TCDScheduler",
    }
    | FLOW_SOLVERS
)

# The one with a `timestep_type: continuous`, as Stable Video Diffusion was trained.
CONTINUOUS = "EulerDiscreteScheduler"

# They draw noise at every step: without a generator of the row's own no clip could be rendered again.
STOCHASTIC = frozenset(
    {
        "CogVideoXDPMScheduler",
        "DDPMScheduler",
        "DPMSolverSDEScheduler",
        "EulerAncestralDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "LCMScheduler",
        "LTXEulerAncestralRFScheduler",
        "SASolverScheduler",
        "TCDScheduler",
    }
)

# Distilled for this many steps at most (their `original_inference_steps`), more is refused when rendering.
DISTILLED = frozenset({"LCMScheduler", "TCDScheduler"})
