"""From the chosen rows to the names under which VBench looks for their clips: PROMPT-INDEX.mp4.

https://github.com/Vchitect/VBench/tree/master/prompts: five videos of each prompt, with the indices 0 to 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts.parts import rows_of
from framefleet.plugins.export.labels import CAPTION, prompt_of
from framefleet.plugins.export.selection import Selection

_ENDINGS = (".mp4", ".gif")
_MAX_NAME = 255  # bytes of a file's name on Linux and macOS


def vbench_names(selection: Selection, endings: Collection[str]) -> dict[str, str]:
    """Return the names of the clips by row_id. Those of a prompt are numbered in the order of the table.

    The prompt is the caption of the export, if it has one. Raises JobError for what VBench would not find.
    """
    if len(endings) > 1 or not {*endings} <= {*_ENDINGS}:
        raise JobError(
            f"clips end in {', '.join(sorted(endings))}, and VBench reads one of {', '.join(_ENDINGS)}",
            "render with media.format mp4, or choose other clips with --where",
        )
    (ending,) = endings
    clips: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for table in selection.rows("seed", "row_indices"):
        for row in rows_of(table, "records"):
            prompt = row[CAPTION] if CAPTION in selection.added else prompt_of(row)
            clips[prompt].append((min(row["row_indices"]), row["seed"], row["row_id"]))
    names = {}
    for prompt, of_prompt in clips.items():
        seeds = [seed for _, seed, _ in of_prompt]
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            raise JobError(
                f"{prompt[:100]!r} has {seeds.count(twice[0])} clips with the seed {twice[0]}",
                "choose those of one setting with --where, as VBench compares models by one",
            )
        for index, (_, _, row_id) in enumerate(sorted(of_prompt)):
            name = names[row_id] = f"{prompt}-{index}{ending}"
            if not prompt or "/" in name or "\0" in name or len(name.encode()) > _MAX_NAME:
                problem = "is empty" if not prompt else "cannot be the name of a file"
                raise JobError(
                    f"the prompt of row {row_id} {problem}: {prompt[:100]!r}",
                    "leave it out with --where: VBench finds a video by its prompt",
                )
    return names
