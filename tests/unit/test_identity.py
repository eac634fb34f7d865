"""What a row's identity depends on."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pyarrow as pa
import pytest

from framefleet import Request
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.request import is_input, is_model
from framefleet.pipeline.rows.identity import deciding, derive_seed, rank_of
from tests.rows import row_id

REQUEST = Request(arguments={"prompt": "a cat", "guidance_scale": 5.0}, seed=7, scheduler="DDIMScheduler")
REST: dict[str, Any] = {"model_digest": "ab", "numerics": {"dtype": "fp32"}, "recipe_digest": None}


def test_canonical_json_has_one_spelling() -> None:
    value = {"prompt": "一只猫 🐈", "a": [1, 0.1, 1e-7, None, True]}
    assert canonical_json(value) == '{"a":[1,0.1,1e-07,null,true],"prompt":"一只猫 🐈"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("value", "rank"),
    [(3, 3.0), (7.5, 7.5), ("linear(7, 3)", -math.inf), ([1, 2], -math.inf), (None, -math.inf)],
)
def test_a_row_whose_argument_is_no_number_goes_last(value: Any, rank: float) -> None:
    request = Request(arguments={"guidance_scale": value})
    carried = pa.RecordBatch.from_pylist([{"tag": "x"}])
    assert rank_of("priority:guidance_scale", request, carried) == rank


def test_the_row_id_is_the_published_formula() -> None:
    content = (
        '{"arguments":{"guidance_scale":5.0,"prompt":"a cat"},"fps":null,"model_digest":"ab",'
        '"numerics":{"dtype":"fp32"},"recipe":"generate","recipe_digest":null,'
        '"scheduler":"DDIMScheduler","seed":7}'
    )
    assert row_id(REQUEST, **REST) == hashlib.sha256(content.encode()).hexdigest()[:32]
    content = '{"arguments":{"prompt":"a cat"},"recipe":"generate","scheduler":null}'
    seed = derive_seed(arguments={"prompt": "a cat"}, scheduler=None, recipe="generate")
    assert seed == int(hashlib.sha256(content.encode()).hexdigest()[:8], 16)


def test_images_and_models_are_told_by_their_digests_and_not_by_where_they_are() -> None:
    image, model = {"uri": "a.png", "sha256": "ab"}, {"name": "flux", "digest": "cd", "dtype": "bf16"}
    found = deciding({"image": image, "image_model": model, "height": 8})
    assert found == {"image": {"sha256": "ab"}, "image_model": {"digest": "cd", "dtype": "bf16"}, "height": 8}
    for name in ("uri", "digest", "name"):  # which a LoRA may be called too
        loras = {name: {"sha256": "ab", "weight": 1.0}}
        assert not is_input(loras) and not is_model(loras)
        assert deciding({"lora": loras}) == {"lora": loras}
