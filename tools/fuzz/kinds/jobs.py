"""Job files whose values, text or options are bad."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.jobs import prompt_rows, write_table
from tests.tiny import SMALLEST
from tools.fuzz import hostile
from tools.fuzz.case import Case, command
from tools.fuzz.material import Material

# Every section, so that every key can go wrong.
SECTIONS: dict[str, Any] = {
    "columns": {"prompt": "prompt"},
    "recipe": "generate",
    "batching": {"mode": "exact", "max_rows": 4, "min_gain": 0.1},
    "media": {"format": "mp4", "crf": 18, "fps": 8},
    "fleet": {
        "address": None,
        "workers": 2,
        "gpus_per_worker": 0,
        "cpus_per_worker": 1,
        "ready_timeout_s": 60,
        "silence_s": 15,
    },
    "retries": {"attempts": 3, "worker_deaths": 3, "faults": 3, "stall_s": 60},
    "on_invalid": "skip",
    "inputs": {"roots": ["pictures"]},
    "keep_embeddings": False,
    "storage_options": {"anon": True, "client_kwargs": {"region_name": "x"}},
    "loras": {"style": {"path": "style.safetensors"}},
}
# Each line names the one before it nine times.
_LINES = list(pairwise("abcdefghijklm"))
TEXTS = (
    "a: &a [x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in _LINES),
    "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}], {b}{b}: *{a}}}\n" for a, b in _LINES),
    "output: 2024-13-45\n",
    "output: 2024-10-10T99:99:99\n",
    "? null\n: x\n",
    "? [a, b]\n: x\n",
    "? {a: b}\n: x\n",
    "1: x\n1.5: y\ntrue: z\nnull: w\n",
    "a: !!binary x\n",
    "a: !!set {b, c}\n",
    "a: !!omap [b: 1]\n",
    "a: !!pairs [b: 1]\n",
    "a: !!timestamp x\n",
    "a: !!int x\n",
    "a: !!float x\n",
    "a: !!bool x\n",
    "a: !!null x\n",
    "a: !!python/object/apply:os.system ['id']\n",
    "a: !<tag:yaml.org,2002:str> [x]\n",
    "<<: x\n",
    "<<: [x]\n",
    "<<: {a: 1}\n<<: {b: 2}\n",
    "a: *a\n",
    "&a a: *a\n",
    "%YAML 9.9\n---\na: 1\n",
    "%TAG ! tag:x\n---\na: !y z\n",
    "a: 1\n---\nb: 2\n",
    "[" * 5000,
    "{" * 5000,
    "- " * 3000 + "x",
    "a: " + "9" * 5000,
    "a: 1:2:3:4:99\n",
    "a: 0b" + "1" * 5000 + "\n",
    "a: 0x" + "f" * 5000 + "\n",
    "a: .inf\nb: .nan\nc: -.inf\n",
    "=: x\n",
    "a: =\n",
    "\ufeff\ufeffa: 1\n",
    "\ta: 1\n",
    "a: \x07\n",
    "a: \x1b]0;x\x07\n",
    'a: "\\x1b]0;x\\a"\n"\\x1b[2J": 1\n',
    'a: "\\ud800"\n',
    "# only a comment",
    "",
    "\0",
)


def honest(rng: Random, folder: Path, material: Material) -> dict[str, Any]:
    """Write a table, and return a job on it as a mapping, with some of its sections."""
    table = write_table(folder / "t.parquet", prompt_rows(3))
    (folder / "style.safetensors").write_bytes(material.lora)
    sections = {name: value for name, value in SECTIONS.items() if rng.random() < 0.4}
    model = str(material.model("wan"))
    return {
        "table": table.name,
        "output": "out",
        "model": rng.choice((model, {"path": model, "dtype": "fp32", "device": "cpu", "threads": 1})),
        "defaults": {"max_sequence_length": 32, **SMALLEST["wan"]},
        **sections,
    }


def _planned(folder: Path, content: bytes, told: str) -> Case:
    (folder / "job.yaml").write_bytes(content)
    return Case(told=told, run=command("plan", "job.yaml"))


def job_files(rng: Random, folder: Path, material: Material) -> Case:
    """Values where others belong."""
    values = hostile.mutated_tree(rng, honest(rng, folder, material))
    try:
        content = yaml.safe_dump(values, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError, yaml.YAMLError):  # what PyYAML itself cannot write
        content = repr(values).encode("utf-8", "surrogatepass")[:100_000]
    return _planned(folder, content, "values of a job file")


def job_texts(rng: Random, folder: Path, material: Material) -> Case:
    """Text that is odd YAML, or none."""
    content = yaml.safe_dump(honest(rng, folder, material)).encode()
    if rng.random() < 0.6:
        odd = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        content = odd if rng.random() < 0.5 else content + odd
    else:
        content = hostile.mutated_bytes(rng, content)
    return _planned(folder, content, "text of a job file")


def job_sets(rng: Random, folder: Path, material: Material) -> Case:
    """Options on the command line."""
    (folder / "job.yaml").write_text(yaml.safe_dump(honest(rng, folder, material)))
    keys = [
        *SECTIONS,
        "table",
        "output",
        "model",
        "defaults",
        "model.dtype",
        "loras.style.path",
        "fleet.workers",
    ]
    options: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice(
            (rng.choice(keys), rng.choice(keys) + "." + hostile.text(rng), hostile.text(rng), "a." * 2000)
        )
        value = rng.choice((hostile.text(rng), str(hostile.value(rng)), rng.choice(TEXTS)))
        text = f"{key}={value}" if rng.random() < 0.9 else key
        # what a command line can hold
        options.append("--set=" + text.replace("\0", "").encode("utf-8", "replace").decode()[:100_000])
    return Case(told=f"options of a job: {options!r:.200}", run=command("plan", "job.yaml", *options))
