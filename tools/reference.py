"""The pages of docs/reference and for agents: `python -m tools.reference`; with --check, which are stale.

From schemas, the command line, docstrings and docs/.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import jsonschema
import typer
import yaml

import framefleet
from framefleet.jobs.cli import command_line
from framefleet.jobs.job.schema import job_schema
from framefleet.pipeline.errors import FramefleetError
from tools.house.house import Finding, House

ROOT = Path(__file__).parents[1]
_MADE = "<!-- Made by python -m tools.reference: change what it reads, not this page. -->"


# Keys of job files


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKey:
    """A key of a job file. path: with <name> for any name and [] for each member of a list."""

    path: tuple[str, ...]
    schema: Mapping[str, Any]
    is_required: bool

    @property
    def default(self) -> str:
        if self.is_required:
            return "required"
        empty = {"object": {}, "array": []}.get(self.schema.get("type", ""))
        value = self.schema.get("default", empty)
        return "" if value is None or (isinstance(value, dict) and value) else _code(value)


def job_keys(schema: Mapping[str, Any]) -> Iterator[JobKey]:
    """Yield all keys of a job file, each once, the keys below a key after it."""
    definitions, seen = schema["$defs"], set()

    def walk(value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[JobKey]:
        value = definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
        for name, key in value.get("properties", {}).items():
            at = (*path, name)
            if at not in seen:  # a second form of the same section has keys of its own, and shared ones
                seen.add(at)
                yield JobKey(path=at, schema=key, is_required=name in value.get("required", ()))
                if at not in _LIKE_MODEL:
                    yield from walk(key, at)
        for member in value.get("anyOf", ()):
            yield from walk(member, path)
        for inner, step in (("additionalProperties", "<name>"), ("items", "[]")):
            if isinstance(value.get(inner), dict):
                yield from walk(value[inner], (*path, step))

    yield from walk(schema, ())


_LIKE_MODEL = (("models",), ("audit", "against", "model"))  # which have the keys of `model`


def example_of(key: JobKey, examples: Mapping[str, Any]) -> Any:
    """Return the example with the longest end of the key's path. Raises LookupError without one."""
    ends = (".".join(key.path[start:]) for start in range(len(key.path)))
    if not (end := next((end for end in ends if end in examples), None)):
        raise LookupError(f"{'.'.join(key.path)} has no example: give one in tools/reference_examples.yaml")
    return examples[end]


def job_page() -> str:
    """Return docs/reference/job.md. Raises ValidationError for an example that the job file refuses."""
    examples = yaml.safe_load((ROOT / "tools/reference_examples.yaml").read_text("utf-8"))
    lines = [
        "# Keys of the job file",
        "",
        _MADE,
        "",
        "Every key of a job file, with its default and an example. Keys below another key "
        "are written with a dot, as for `--set`, e.g. `--set media.crf=23`; `<name>` is a name that you "
        "choose, `[]` each member of a list. A key without a value means its default. Unknown keys are "
        "refused. `framefleet schema` prints the same as a JSON Schema, for editors.",
    ]
    render, train = job_schema(), job_schema("train")
    for schema, title in ((render, "Render jobs"), (train, "Trainings")):
        lines += ["", f"## {title}"]
        if schema is train:
            lines += [
                "",
                "The job file of `framefleet train`. It also has the keys "
                + ", ".join(f"`{name}`" for name in train["properties"] if name in render["properties"])
                + " of render jobs.",
            ]
        for key in job_keys(schema):
            if schema is train and key.path[0] in render["properties"]:
                continue
            example = example_of(key, examples)
            # Not `jsonschema.validate`, which checks the whole schema too, for each key.
            jsonschema.Draft202012Validator({**key.schema, "$defs": schema["$defs"]}).validate(example)
            description = _sentence(key.schema["description"])
            if len(key.path) == 1:
                lines += ["", f"### `{key.path[0]}`", "", description, ""]
                shown = yaml.safe_dump(
                    {key.path[0]: example},
                    default_flow_style=None if isinstance(example, dict | list) else False,
                )
                lines += [f"    {line}" for line in shown.splitlines()]
                if key.default:
                    lines += ["", f"Default: {key.default}." if key.default != "required" else "Required."]
                is_first = True
            else:
                if is_first:
                    lines += ["", "| key | default | example | meaning |", "| --- | --- | --- | --- |"]
                    is_first = False
                cells = (f"`{_path(key.path)}`", key.default, _code(example), description)
                lines.append(f"| {' | '.join(cells)} |")
        if schema is render:
            lines += _choices(schema["$defs"], schema["$defs"]["ModelSection"]["properties"])
    return "\n".join(lines) + "\n"


def _choices(definitions: Mapping[str, Any], keys: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "### Mappings of `model.cache`, `model.quantization` and `model.offload`", "")
    yield "Each is one of these. Names and defaults are those of diffusers, or of the package that is named."
    yield from ("", "| key | mapping | keys and defaults | meaning |", "| --- | --- | --- | --- |")
    for name in ("cache", "quantization", "offload"):
        for member in keys[name]["anyOf"]:
            for choice in member.get("oneOf", ()):
                mapping = definitions[choice["$ref"].rpartition("/")[2]]
                form = "type" if name != "quantization" else "backend"
                value = mapping["properties"][form].get("const", "any other")
                rest = (
                    f"`{key}` ({_code(at['default'])})" if at.get("default") is not None else f"`{key}`"
                    for key, at in mapping["properties"].items()
                    if key != form
                )
                text = _sentence(mapping["description"].replace("\n\n", " "))
                yield f"| `model.{name}` | `{form}: {value}` | {', '.join(rest)} | {text} |"


def _path(path: Iterable[str]) -> str:
    return ".".join(path).replace(".[]", "[]")


def _code(value: Any) -> str:
    return (
        "`"
        + _cell(value if isinstance(value, str) else json.dumps(value, default=str).replace('"', ""))
        + "`"
    )


def _sentence(text: str) -> str:
    """Return a text for a cell or a paragraph of Markdown: what would be markup is not."""
    spans = re.split("(`[^`]*`)", " ".join(text.split()))
    return _cell("".join(one if one.startswith("`") else re.sub(r"([<*])", r"\\\1", one) for one in spans))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# Commands


def commands_page() -> str:
    """Return docs/reference/commands.md."""
    root = typer.main.get_command(command_line())
    lines = [
        "# Commands",
        "",
        _MADE,
        "",
        "Every command with its arguments and options, as "
        "`framefleet COMMAND --help` prints them. `framefleet --version` prints the version; "
        "`framefleet --install-completion` sets up completion in your shell.",
    ]
    by_panel: dict[str, list[tuple[str, Any]]] = {}
    for name, command in _commands(root, "framefleet"):
        panel = getattr(command, "rich_help_panel", None)
        by_panel.setdefault(panel if isinstance(panel, str) else "Models", []).append((name, command))
    for panel, commands in by_panel.items():
        lines += ["", f"## {panel}"]
        for name, command in commands:
            context = click.Context(command, info_name=name)
            lines += ["", f"### {name}", ""]
            lines += [f"    {' '.join(command.get_usage(context).removeprefix('Usage: ').split())}"]
            lines += ["", *textwrap.dedent(inspect.cleandoc(click.unstyle(command.help))).splitlines()]
            lines += ["", "| argument or option | meaning |", "| --- | --- |"] if command.params else []
            for one in command.params:
                lines.append(
                    f"| {_parameter(one)} | {_sentence(click.unstyle(one.help or ''))}{_default(one)} |"
                )
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _parameter(one: Any) -> str:
    if one.param_type_name == "argument":
        return f"`{_cell(one.metavar or one.name.upper())}`"
    value = "" if one.is_flag else " " + (one.metavar or one.opts[0].strip("-").replace("-", "_").upper())
    return ", ".join(f"`{opt}{_cell(value)}`" for opt in [*one.opts, *one.secondary_opts])


def _default(one: Any) -> str:
    is_shown = one.default not in (None, False, (), []) and not callable(one.default) and not one.required
    return f" Default: {_code(one.default)}." if is_shown and not one.is_flag else ""


# Python names


def python_page() -> str:
    """Return docs/reference/python.md."""
    lines = [
        "# Python",
        "",
        _MADE,
        "",
        "Every public name of `framefleet`; most commands are functions, too. `import framefleet` loads "
        "neither torch nor Ray: modules are imported when they are first used. Where a job file is taken, "
        "a mapping works, too. Arguments after `*` are given by name.",
    ]
    public = {name: getattr(framefleet, name) for name in framefleet.__all__}
    kinds = [one for one in public.values() if inspect.isclass(one) and issubclass(one, FramefleetError)]
    values = {name: value for name, value in public.items() if value not in kinds}
    functions = {name: value for name, value in values.items() if inspect.isfunction(value)}
    returned = {
        kind.__name__: kind
        for function in functions.values()
        for kind in _returned(function)
        if kind not in values.values()
    }
    others = values.keys() - functions.keys() | returned.keys()
    for title, names in (("Functions", functions), ("Values", others)):
        lines += ["", f"## {title}"]
        for name in sorted(names, key=str.lower):
            full = name if name in returned else f"framefleet.{name}"  # what functions return is not imported
            lines += ["", f"### {full}", "", *_described(full, returned.get(name) or values[name])]
    lines += [
        "",
        "## Errors",
        "",
        "All are imported from `framefleet`, too.",
        "",
    ]
    lines += ["| error | is a | meaning |", "| --- | --- | --- |"]
    for kind in kinds:
        meaning = (kind.__doc__ or "").partition("\n\n")[0]  # its own, not that of another error
        lines.append(f"| `{kind.__name__}` | `{kind.__base__.__name__}` | {_sentence(meaning)} |")
    return "\n".join(lines) + "\n"


def _described(name: str, value: Any) -> Iterator[str]:
    if inspect.isfunction(value):
        yield from _block(_signature(name, value))
        yield from ("", *_docs(value))
        return
    if fields := list(_fields(value)):
        yield from _block("\n".join(fields))
        yield ""
    elif value.__init__ is not object.__init__ and not dataclasses.is_dataclass(value):
        yield from _block(_signature(name, value.__init__))
        yield ""
    yield from _docs(value)
    members = (at for kind in value.__mro__ if _is_ours(kind) for at in kind.__dict__.items())
    seen: set[str] = set()
    for member, at in members:
        if member.startswith("_") or member in {*seen, "overview"}:  # which is what Python shows of a value
            continue
        seen.add(member)
        at = at.__func__ if isinstance(at, classmethod | staticmethod) else at
        first = (inspect.getdoc(at) or "").partition("\n\n")[0]
        if isinstance(at, property):
            yield from ("", f"- `.{member}`: {_sentence(first)}")
        elif inspect.isfunction(at) and first:
            yield from ("", f"- `.{_signature(member, at, width=10**6)}`: {_sentence(first)}")


def _returned(function: Any) -> Iterator[type]:
    """Yield our classes that a function returns, alone or in a list, also those imported for types alone."""
    function = inspect.unwrap(function)
    source = inspect.getsource(inspect.getmodule(function))
    for name in re.findall(r"\w+", inspect.signature(function).return_annotation):
        kind = function.__globals__.get(name)
        home = re.search(rf"^ +from (\S+) import .*\b{name}\b", source, re.MULTILINE)
        if kind is None and home:
            kind = getattr(import_module(home[1]), name)
        if inspect.isclass(kind) and _is_ours(kind):
            yield kind


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("framefleet.")


def _signature(name: str, function: Callable[..., Any], *, width: int = 100) -> str:
    signature = inspect.signature(function)
    parameters = [_short(one) for one in signature.parameters.values() if one.name not in ("self", "cls")]
    text = name + re.sub(
        r"(: |-> )(['\"])(.*?)\2", r"\1\3", str(signature.replace(parameters=parameters))
    ).replace("framefleet.", "")
    if len(text) <= width:
        return text
    inner, _, returned = text.partition("(")[2].rpartition(") -> ")
    parts = re.split(r", (?=\*?\*?\w+(?::|=|,|$)|\*,)", inner)
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {returned}"


def _short(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return it with a default of our classes as its class alone, e.g. `Given()`."""
    kind = type(parameter.default)
    if not dataclasses.is_dataclass(kind):
        return parameter
    shown = type(kind.__name__, (), {"__repr__": lambda _: f"{kind.__name__}()"})
    return parameter.replace(default=shown())


def _fields(kind: type) -> Iterator[str]:
    """Yield the lines of the fields of a dataclass, those of its bases first, with their comments."""
    if not dataclasses.is_dataclass(kind):
        return
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        source = textwrap.dedent(inspect.getsource(base))
        lines, node = source.splitlines(), ast.parse(source).body[0]
        assert isinstance(node, ast.ClassDef)
        fields = [
            one
            for one in node.body
            if isinstance(one, ast.AnnAssign) and not ast.unparse(one.target).startswith("_")
        ]
        for field in fields:
            start = field.lineno - 1
            while lines[start - 1].lstrip().startswith("#"):
                start -= 1
            yield from (line.removeprefix("    ") for line in lines[start : field.end_lineno])


def _block(text: str) -> Iterator[str]:
    yield "```python"
    yield text
    yield "```"


def _docs(value: Any) -> Iterator[str]:
    """Yield a docstring as Markdown: its indented lines stay code."""
    text = inspect.getdoc(value) or ""
    for line in text.splitlines():
        yield line if line.startswith("    ") else re.sub(r"(?<!`)([<*])(?![^`]*`)", r"\\\1", line)


# For agents


def skill_page() -> str:
    """Return plugins/skill/SKILL.md."""
    troubleshooting = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    exit_codes = re.search(r"^\| exit code .*?(?=\n\n)", troubleshooting, re.DOTALL | re.MULTILINE)
    assert exit_codes
    commands = (
        f"- `{name}`: {_first_sentence(inspect.cleandoc(click.unstyle(command.help)))}"
        for name, command in _commands(typer.main.get_command(command_line()), "framefleet")
    )
    template = (ROOT / "tools/skill.md").read_text("utf-8")
    table = exit_codes[0].replace(" (below)", "")
    return template.format(made=_MADE, exit_codes=table, commands="\n".join(commands))


def llms_page() -> str:
    """Return docs/llms.txt (https://llmstxt.org): every page of docs/, with its first sentence."""
    lines = ["# framefleet", "", f"> {inspect.cleandoc(command_line().info.help)}", "", "## Docs", ""]
    for path in sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/reference/*.md")]):
        title, *paragraphs = path.read_text("utf-8").split("\n\n")
        text = next(text for text in paragraphs if not text.startswith(("<!--", "![")))
        about = re.sub(
            r"\[([^]]*)\]\([^)]*\)", r"\1", _first_sentence(text)
        )  # links lead elsewhere from here
        name = path.relative_to(ROOT / "docs").as_posix()
        lines.append(f"- [{title.strip('# ')}]({name}): {about}")
    return "\n".join([*lines, "- [Skill](../plugins/skill/SKILL.md): How agents use framefleet.", ""])


def _first_sentence(text: str) -> str:
    return re.split(r"(?<!e\.g\.)(?<=\.)\s", " ".join(text.split()))[0].rstrip(":")


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/job.md": job_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/python.md": python_page,
    "plugins/skill/SKILL.md": skill_page,
    "docs/llms.txt": llms_page,
}


def stale_pages(house: House) -> Iterator[Finding]:
    """Yield the pages that are not what they are made from."""
    for path, page in PAGES.items():
        text = house.texts.get(path) if path.endswith(".md") else (ROOT / path).read_text("utf-8")
        if text != page():
            yield Finding(path, 1, "not what it is made from: python -m tools.reference")


if __name__ == "__main__":
    is_check = sys.argv[1:] == ["--check"]
    stale = [path for path, page in PAGES.items() if (ROOT / path).read_text("utf-8") != page()]
    for path in stale:
        if is_check:
            print(f"{path}: not what it is made from: python -m tools.reference", file=sys.stderr)
        else:
            (ROOT / path).write_text(PAGES[path](), "utf-8")
    sys.exit(bool(stale and is_check))
