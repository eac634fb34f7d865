"""The command `framefleet replay`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from rich.text import Text
from typer import Argument, Exit, Option

from framefleet.api.commands import (
    AllowPickle,
    OutputToRead,
    StorageSets,
    quiet_libraries,
    stderr,
    stdout,
    with_groups,
)
from framefleet.api.errors import JobError
from framefleet.plugins.keep.replay.given import Given

_RowId = Annotated[
    str,
    Argument(
        metavar="ROW_ID",
        help="Row to render: its row_id, its first digits (at least 4), or the name of its clip.",
    ),
]
MovedModels = Annotated[
    list[str] | None,
    Option(
        "--model",
        metavar="PATH",
        help="Path or URL of the model, if it has moved; NAME=PATH for one of several models; repeatable.",
    ),
]
_MovedLoras = Annotated[
    list[str] | None,
    Option("--lora", metavar="NAME=PATH", help="Path or URL of a LoRA, if it has moved; repeatable."),
]
_MovedParts = Annotated[
    list[str] | None,
    Option(
        "--part",
        metavar="NAME=PATH",
        help="Path or URL of a file with a component's weights, if it has moved; repeatable.",
    ),
]
_MovedIpAdapter = Annotated[
    str | None, Option("--ip-adapter", metavar="PATH", help="Path or URL of the IP-adapter, if it has moved.")
]
_MovedSecondModels = Annotated[
    list[str] | None,
    Option(
        "--second-model",
        metavar="NAME=PATH",
        help="Path or URL of a second model, if it has moved; repeatable.",
    ),
]
_OwnRecipes = Annotated[
    list[str] | None,
    Option("--recipe", help="Your recipe as module:function, if the row uses one; repeatable."),
]
_HubKernel = Annotated[
    str | None,
    Option("--attention", help="Attention kernel to fetch from the hub as code, if the row used this one."),
]
ReadableRoots = Annotated[
    list[str] | None,
    Option("--root", help="Folder or URL from which a row's images and videos may be read; repeatable."),
]
_Audit = Annotated[
    str | None,
    Option(
        "--audit",
        metavar="OUTPUT",
        help="Output with an audit that compares clips of two machines, for use if this is another machine. "
        "Default: the output of the rows.",
    ),
]
_Save = Annotated[Path | None, Option("--save", metavar="FILE", help="Write the clip to this file.")]
_Script = Annotated[
    bool, Option("--script", help="Print a script that renders the row with torch and diffusers alone.")
]


def given_of(
    models: MovedModels = None,
    parts: _MovedParts = None,
    loras: _MovedLoras = None,
    ip_adapter: _MovedIpAdapter = None,
    second_models: _MovedSecondModels = None,
    recipes: _OwnRecipes = None,
    attention: _HubKernel = None,
    allow_pickle: AllowPickle = False,
    audit: _Audit = None,
) -> Given:
    """Return the values of these options. A model is NAME=PLACE, or PLACE, which may contain a =."""
    from framefleet.api.jobs import places
    from framefleet.pipeline.model.lora import NAME

    pairs = [text.partition("=") for text in models or []]
    by_name = {name: place for name, equals, place in pairs if equals and NAME.fullmatch(name)}
    if len(by_name) != len(pairs) > 1:
        problem = "--model is given more than once"
        raise JobError(problem, "give it once, or once for each model as NAME=PLACE")
    return Given(
        model=models[0] if models and len(models) == 1 else None,
        models=by_name,
        parts=places(parts or [], "--part"),
        loras=places(loras or [], "--lora"),
        ip_adapter=ip_adapter,
        second_models=places(second_models or [], "--second-model"),
        recipe=recipes or None,
        attention=attention,
        allow_pickle=allow_pickle,
        audit=audit,
    )


@with_groups
def replay_command(
    output: OutputToRead,
    row_id: _RowId,
    given: Callable[[], Given] = given_of,
    roots: ReadableRoots = None,
    save: _Save = None,
    script: _Script = False,
    sets: StorageSets = None,
) -> None:
    """Render one row again from its record and compare. Exit code 0: same frames and sound; 1: different.

    The output is not trusted: framefleet does not run code, load pickles or open private addresses just
    because the output names them. If the row needs them and you trust them, allow them with these options.
    """
    from framefleet.api.jobs import storage_options

    if script and save is not None:
        raise JobError("--script renders nothing, and --save writes the clip", "leave one of them out")
    consent = replace(given(), roots=tuple(roots or []), storage_options=storage_options(sets))
    is_equal = True
    if script:
        quiet_libraries()
        from framefleet.plugins.keep.replay.script import replay_script

        print(replay_script(output, row_id, consent), end="")
    else:
        is_equal = show_replay(output, row_id, consent, save=save)
    raise Exit(0 if is_equal else 1)


def show_replay(output: str, row_id: str, given: Given, *, save: Path | None) -> bool:
    """Render one row again and print what is equal; return whether frames and sound are."""
    if save is not None and save.is_dir():
        raise JobError(f"--save {save} is a folder", "name a file in it, e.g. clip.mp4")
    if save is not None and not save.parent.is_dir():
        raise JobError(f"--save {save}: {save.parent} is not a folder", "create it first")
    quiet_libraries()
    from framefleet.plugins.keep.replay.recorded_row import find_recorded
    from framefleet.plugins.keep.replay.replay import Replayer

    recorded = find_recorded(output, row_id, given)
    stderr.say("opening the model")
    replayed = Replayer(given).replay(recorded)
    for name, then, now in replayed.digests:
        outcome = Text("equal", style="green") if then == now else Text("different", style="red")
        text = f"  {now}" if then == now else f"\n  record {then}\n  now    {now}"
        stdout.say(Text(f"{name}: ").append(outcome).append(text))
    for damage in replayed.damages:
        stdout.say(Text("stored clip: ").append(damage.kind, style="red").append(f"  {damage.path}"))
    if not replayed.is_equal:
        text = ", ".join([replayed.compared.verdict, *replayed.compared.details()])
        stdout.say(Text("verdict: ").append(text, style="red"))
        for remark in replayed.compared.remarks():
            stdout.say(unforged(f"  {remark}"))
    for name, then, now in replayed.differences:
        stdout.say(unforged(f"{name}: {then} then, {now} now"))
    if save is not None:
        save.write_bytes(replayed.media)
        stderr.say(f"clip: {save}")
    return replayed.is_equal


def unforged(text: str) -> str:
    """Return text of a record as one line, so that it cannot forge lines of output."""
    return text.replace("\n", "\\n")
