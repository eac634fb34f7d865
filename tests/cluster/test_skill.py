"""The commands of the skill for agents, typed in order by somebody who knows nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.warm.process import ROOT, shell_environment


def test_an_agent_gets_from_the_skill_to_a_dataset(tmp_path: Path) -> None:
    skill = (ROOT / "plugins/skill/SKILL.md").read_text("utf-8")
    commands = re.findall(r"^    (framefleet .*)$", skill, re.M)
    ended = subprocess.run(
        ["bash", "-euc", "\n".join(commands)],
        cwd=tmp_path,
        env=shell_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    objects = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(objects) == 3  # of status, plan and render; no row failed
    assert (tmp_path / "sheet.png").stat().st_size > 0
    assert len(list(tmp_path.glob("dataset/data/*/*.mp4"))) == 2
