"""Prompts that a pipeline's own enhancer writes are kept next to those of the table, and come out again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diffusers import ErnieImagePipeline
from transformers import Ministral3Config, Ministral3ForCausalLM

from framefleet.jobs.keep.replay.replay import replay
from tests.here import render_here
from tests.jobs import job_values, records_of, write_table
from tests.tinies.encoders import chat_tokenizer
from tests.tinies.flux2 import ernie
from tests.tiny import SMALLEST


@pytest.mark.ci
def test_both_texts_are_in_the_record_of_a_pipeline_that_enhances_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    enhancing().save_pretrained(folder)
    cells = [
        {"prompt": "a red ball", "seed": 0, "use_pe": True},
        {"prompt": "a red ball", "seed": 1, "use_pe": False},
    ]
    values = job_values(write_table(tmp_path / "t.parquet", cells), tmp_path / "out", model="ernie")
    output, row_ids = render_here(
        values | {"model": str(folder), "defaults": SMALLEST["ernie"]}, is_mixed=True
    )
    enhanced, plain = sorted(records_of(output), key=lambda record: record["seed"])
    assert json.loads(enhanced["arguments"])["prompt"] == "a red ball"
    written = json.loads(enhanced["extra_outputs"])["written_prompt"]
    assert written and written != "a red ball"
    assert "written_prompt" not in json.loads(plain["extra_outputs"] or "{}")
    assert all(replay(output, row_id).is_equal for row_id in row_ids)


def enhancing() -> ErnieImagePipeline:
    """Return a tiny ERNIE-Image with a language model that writes another prompt."""
    config = Ministral3Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=1,
    )
    tokenizer = chat_tokenizer()
    tokenizer.model_max_length = 24  # how many tokens it writes
    return ErnieImagePipeline(
        **{**ernie().components, "pe": Ministral3ForCausalLM(config).eval(), "pe_tokenizer": tokenizer}
    )
