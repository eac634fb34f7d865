"""Names of weights choose what is trained."""

from __future__ import annotations

import pytest
from torch import nn

from framefleet.pipeline.errors import JobError
from framefleet.plugins.train.freezing import choose_parameters


def trained() -> dict[str, nn.Module]:
    block = nn.ModuleDict({"to_q": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    return {"transformer": nn.ModuleDict({"blocks": nn.ModuleList([block]), "proj_out": nn.Linear(2, 2)})}


def test_without_patterns_all_weights_are_trained() -> None:
    chosen = choose_parameters(trained())
    assert len(chosen) == 6 and all(weight.requires_grad for weight in chosen.values())


def test_a_pattern_stands_for_all_below_it() -> None:
    modules = trained()
    assert list(choose_parameters(modules, ["transformer.blocks.0"], ["*.bias"])) == [
        "transformer.blocks.0.to_q.weight",
        "transformer.blocks.0.norm.weight",
    ]
    frozen = [key for key, w in modules["transformer"].named_parameters() if not w.requires_grad]
    assert frozen == ["blocks.0.to_q.bias", "blocks.0.norm.bias", "proj_out.weight", "proj_out.bias"]


@pytest.mark.parametrize("setting", ["only", "freeze"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(setting: str) -> None:
    with pytest.raises(JobError, match=rf"train.{setting}: 'transformer.block.\*'[^$]*transformer.blocks,"):
        choose_parameters(trained(), **{setting: ["transformer.block.*"]})


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(JobError, match="no weights are left"):
        choose_parameters(trained(), freeze=["*"])
