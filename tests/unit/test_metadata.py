"""What old pictures and clips say of how they were made, whoever wrote them, becomes rows within bounds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from framefleet.api.clips import Media, encode
from framefleet.jobs.job.file import load_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, TableError
from framefleet.plugins.metadata.a1111 import split_text
from framefleet.plugins.metadata.reading import Unreadable, told_by
from framefleet.plugins.metadata.table import store_table, write_table

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x768, Model: dream"
FORGE = (
    "Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 42, "
    "Size: 512x768, Model hash: 0a1b, Model: flux1-dev, Version: f2.0.1v1.10.1, Module 1: ae"
)
SD_NEXT = (
    "Steps: 20, Size: 512x768, Sampler: UniPC, Seed: 42, CFG scale: 7, App: SD.Next, Version: 3f1c, "
    'Operations: "txt2img; hires", Pipeline: StableDiffusionPipeline'
)
CONTROL = "Module: canny, Model: x [1], Weight: 1.0, Resize Mode: Crop"
# Texts of the kinds that people post: prompts and a line of fields, and what the web UI itself reads of them:
# the prompt, the negative prompt, and some of the fields.
TEXTS: dict[str, tuple[str, str, str, str, Mapping[str, str]]] = {
    "plain": ("a cat\nNegative prompt: dog", LINE, "a cat", "dog", {"Sampler": "Euler a", "Seed": "42"}),
    "no negative": ("a cat", LINE, "a cat", "", {"Steps": "20"}),
    "no prompt": ("Negative prompt: dog", LINE, "", "dog", {}),
    "new lines": ("a\n\nb\nNegative prompt: c\nd", LINE, "a\n\nb", "c\nd", {}),
    "colons": ("(a cat:1.3), [sky:sea:0.4], 16:9", LINE, "(a cat:1.3), [sky:sea:0.4], 16:9", "", {}),
    "quotes": ('a sign: "Open: 9, 5"', LINE, 'a sign: "Open: 9, 5"', "", {}),
    "Steps in a prompt": ("Steps: up, Mood: calm, Seed: no", LINE, "Steps: up, Mood: calm, Seed: no", "", {}),
    "emoji": ("🐈 on a 🧶, 一只猫\nNegative prompt: ❌", LINE, "🐈 on a 🧶, 一只猫", "❌", {}),
    "Windows": ("a cat\r\nNegative prompt: dog\r", f"{LINE}\r\n", "a cat", "dog", {"Model": "dream"}),
    "a LoRA": ("a cat BREAK <lora:ink:0.8>", LINE, "a cat BREAK <lora:ink:0.8>", "", {}),
    "twice negative": ("a\nNegative prompt: b\nNegative prompt: c", LINE, "a", "b\nc", {}),
    "ADetailer": (
        "a cat",
        LINE + ', ADetailer prompt: "a face, smiling: \\"hi\\"", ADetailer confidence: 0.3',
        *("a cat", "", {"ADetailer prompt": 'a face, smiling: "hi"', "ADetailer confidence": "0.3"}),
    ),
    "hires": (
        "a cat",
        LINE + ', Hires upscale: 2, Hires prompt: "a cat,\\nfur", Hires upscaler: 4x-UltraSharp',
        *("a cat", "", {"Hires prompt": "a cat,\nfur", "Hires upscale": "2", "Size": "512x768"}),
    ),
    "hashes": (
        "a cat",
        LINE + ', Lora hashes: "ink: 0a1b, wash: 2c3d", TI hashes: "x: 1"',
        *("a cat", "", {"Lora hashes": "ink: 0a1b, wash: 2c3d", "TI hashes": "x: 1"}),
    ),
    "ControlNet": ("a cat", f'{LINE}, ControlNet 0: "{CONTROL}"', "a cat", "", {"ControlNet 0": CONTROL}),
    "Forge": ("a cat", FORGE, "a cat", "", {"Distilled CFG Scale": "3.5", "Module 1": "ae"}),
    "SD.Next": ("a cat", SD_NEXT, "a cat", "", {"App": "SD.Next", "Operations": "txt2img; hires"}),
    "a template below": ("a red cat", f"{LINE}\nTemplate: a {{red|blue}} cat", "a red cat", "", {}),
    "a wildcard": ("a", f'{LINE}, Wildcard prompt: "a __b__, c"', "a", "", {"Wildcard prompt": "a __b__, c"}),
    "half a quote": ("a cat", f'{LINE}, Note: "half, Version: v1', "a cat", "", {"Note": '"half'}),
    "slashes": ("a cat", f"{LINE}, Mask blur/x-y: 4", "a cat", "", {"Mask blur/x-y": "4"}),
}

# That the form itself cannot give back are among them.
PROMPTS = [
    *(prompt for _, _, prompt, _, _ in TEXTS.values() if prompt),
    *("", " a cat ", "a \nb", "a\r\nb", "a\nNegative prompt: b", LINE, f"a\n{LINE}", "\u2028a", "é" * 9000),
]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_split_as_the_web_ui_splits_it(name: str) -> None:
    head, line, prompt, negative, fields = TEXTS[name]
    found = split_text(f"{head}\n{line}")
    assert (found[0], found[1]) == (prompt, negative)
    assert found[2] | fields == found[2] and {"Steps", "Seed", "Size"} <= found[2].keys()


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(buffer := io.BytesIO(), "PNG", pnginfo=info)
    return buffer.getvalue()


def with_exif(format: str, comment: bytes = b"", *, model: str = "") -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    exif[0x0110] = model
    Image.new("RGB", (8, 8)).save(buffer := io.BytesIO(), format, exif=exif)
    return buffer.getvalue()


def gif(comment: bytes) -> bytes:
    Image.new("P", (8, 8)).save(buffer := io.BytesIO(), "GIF", comment=comment)
    return buffer.getvalue()


def saved(format: str) -> bytes:
    Image.new("RGB", (8, 8)).save(buffer := io.BytesIO(), format)
    return buffer.getvalue()


def clip(**tags: str) -> bytes:
    return encode(np.zeros((2, 64, 64, 3), np.uint8), media=Media(), fps=8, metadata=tags)


Node = tuple[str, dict[str, Any]]
SIDES = {"positive": ["2", 0], "negative": ["3", 0]}
SAMPLER = SIDES | {"seed": 5, "steps": 30, "cfg": 6.5, "latent_image": ["4", 0]}


def graph(**nodes: Node) -> dict[str, Any]:
    """Return a graph of one sampler, with these nodes in place of its own or besides them."""
    own: dict[str, Node] = {
        "_1": ("KSampler", SAMPLER),
        "_2": ("CLIPTextEncode", {"text": "a fox", "clip": ["9", 1]}),
        "_3": ("CLIPTextEncode", {"text": "", "clip": ["9", 1]}),
        "_4": ("EmptyLatentImage", {"width": 640, "height": 480, "batch_size": 1}),
    }
    named = {name.removeprefix("_"): node for name, node in {**own, **nodes}.items()}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in named.items()}


def comfy(**nodes: Node) -> bytes:
    return png(prompt=json.dumps(graph(**nodes)))


DISTILLED = {"prompt": "a cat", "seed": 42, "num_inference_steps": 20, "width": 512, "height": 768}
CAT = DISTILLED | {"guidance_scale": 7.0}
FOX = {"prompt": "a fox", "seed": 5, "num_inference_steps": 30, "guidance_scale": 6.5}
FOX |= {"width": 640, "height": 480}
INVOKE = {"positive_prompt": "a fox", "seed": 5, "steps": 30, "cfg_scale": 6.5, "width": 640, "height": 480}
TEXT, LARGER = f"a cat\n{LINE}", {"samples": ["1", 0], "width": 9, "height": 9}
SECOND = SAMPLER | {"seed": 6, "steps": 8, "latent_image": ["6", 0]}
WITHOUT_NOISE = SAMPLER | {"seed": 6, "add_noise": "disable", "latent_image": ["1", 0]}
CONTROLLED = SAMPLER | {"positive": ["7", 0], "negative": ["7", 1]}
ADVANCED = {name: [name, 0] for name in ("noise", "guider", "sigmas", "latent_image")}
FLUX: dict[str, Node] = {
    "_1": ("SamplerCustomAdvanced", ADVANCED),
    "noise": ("RandomNoise", {"noise_seed": ["seed", 0]}),
    "seed": ("PrimitiveInt", {"value": 5}),
    "guider": ("BasicGuider", {"model": ["9", 0], "conditioning": ["g", 0]}),
    "g": ("FluxGuidance", {"guidance": 3.5, "conditioning": ["2", 0]}),
    "sigmas": ("BasicScheduler", {"steps": 30, "denoise": 1.0}),
    "latent_image": ("EmptySD3LatentImage", {"width": 640, "height": 480}),
}
PASS_BOTH: Node = ("ControlNetApplyAdvanced", SIDES | {"control_net": ["9", 0]})
MATH: Node = ("Math", {"a": 1, "b": 2})
RANDOM: Node = ("Random", {"text": "{a|b}", "seed": 1})
LINKED: Node = ("CLIPTextEncode", {"text": ["8", 0], "clip": ["9", 1]})


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in FOX.items() if name not in names}


READ: dict[str, tuple[bytes, dict[str, Any]]] = {
    "A1111 in a png": (png(parameters=TEXT), CAT),
    "A1111 in a jpeg": (with_exif("JPEG", b"UNICODE\0" + TEXT.encode("utf-16-be")), CAT),
    "the other order of bytes": (with_exif("JPEG", b"UNICODE\0" + TEXT.encode("utf-16-le")), CAT),
    "a mark of the order": (with_exif("JPEG", b"UNICODE\0" + TEXT.encode("utf-16")), CAT),
    "no name of the encoding": (with_exif("JPEG", TEXT.encode()), CAT),
    "a wrong name of the encoding": (with_exif("JPEG", b"UNICODE\0" + TEXT.encode()), CAT),
    "ASCII": (with_exif("WEBP", b"ASCII\0\0\0" + TEXT.encode()), CAT),
    "A1111 in a clip": (clip(comment=TEXT), CAT),
    "A1111 before ComfyUI": (png(parameters=TEXT, prompt=json.dumps(graph())), CAT),
    "a distilled scale": (png(parameters=f"a cat\n{FORGE}"), DISTILLED),
    "InvokeAI": (png(invokeai_metadata=json.dumps(INVOKE)), FOX),
    "ComfyUI": (comfy(), FOX),
    "ComfyUI in a webp": (with_exif("WEBP", model="prompt:" + json.dumps(graph())), FOX),
    "ComfyUI in a clip": (clip(prompt=json.dumps(graph())), FOX),
    "ComfyUI in a comment": (clip(comment=json.dumps({"prompt": json.dumps(graph())})), FOX),
    "a second pass": (
        comfy(_5=("KSampler", SECOND), _6=("LatentUpscale", LARGER)),
        without("seed", "num_inference_steps", "width", "height"),
    ),
    "two stages": (comfy(_5=("KSamplerAdvanced", WITHOUT_NOISE)), FOX),
    "a ControlNet": (comfy(_1=("KSampler", CONTROLLED), _7=PASS_BOTH), FOX),
    "a distilled model": (comfy(**FLUX), without("guidance_scale")),
    "a computed seed": (comfy(_1=("KSampler", SAMPLER | {"seed": ["8", 0]}), _8=MATH), without("seed")),
    "a seed that no row has": (comfy(_1=("KSampler", SAMPLER | {"seed": 2**64 - 1})), without("seed")),
    "A1111 in a gif": (gif(TEXT.encode()), CAT),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_says_what_is_beyond_doubt(name: str) -> None:
    content, cells = READ[name]
    assert told_by(content).cells == cells


def ours(**row: Any) -> bytes:
    text = json.dumps(json.dumps({"row_id": "ab" * 16, "seed": 3, "arguments": {}} | row))
    return png(parameters=f"{TEXT}, framefleet: {text}")


def invoke(**changed: Any) -> bytes:
    return png(invokeai_metadata=json.dumps(INVOKE | changed))


UNREAD: dict[str, tuple[bytes, str]] = {
    "nothing": (png(), "no known metadata"),
    **{format: (saved(format), "no known metadata") for format in ("BMP", "GIF", "TIFF")},
    "no picture": (b"\xff\xd8\xff" + b"?" * 99, "cannot be opened"),
    "another comment": (gif(b"made with a program"), "no line of settings"),
    "an id alone": (png(parameters=json.dumps({"row_id": "ab" * 16})), "`framefleet trace`"),
    "a text": (png(parameters="just a description"), "no line of settings"),
    "a huge seed": (png(parameters=TEXT.replace("42", "9" * 20)), "seed is 9999"),
    "a negative seed": (png(parameters=TEXT.replace("42", "-1")), "seed is -1"),
    "many steps": (png(parameters=TEXT.replace("20", "99999999")), "num_inference_steps"),
    "a huge size": (png(parameters=TEXT.replace("512", "100000")), "width"),
    "an endless scale": (invoke(cfg_scale=float("inf")), "guidance_scale"),
    "a scale of a list": (invoke(cfg_scale=[1, 2]), "guidance_scale"),
    "a long prompt": (invoke(positive_prompt="é" * 40_000), "longer than"),
    "no prompt": (png(parameters=LINE), "no prompt"),
    "two prompts": (comfy(_5=("KSampler", SECOND | {"positive": ["3", 0]})), "ambiguous: it has 2 samplers"),
    "a computed prompt": (comfy(_2=LINKED, _8=RANDOM), "ambiguous"),
    "a graph in a circle": (comfy(_2=("Pass", {"conditioning": ["2", 0]})), "ambiguous"),
    "other JSON": (png(prompt=json.dumps({"a": 1})), "ambiguous: it has 0 samplers"),
    "a deep graph": (png(prompt='{"a":' * 2000 + "1" + "}" * 2000), "no known metadata"),
    "damaged JSON of ours": (png(parameters=f'{TEXT}, framefleet: "{{"'), "damaged"),
    "many fields": (ours(arguments={f"a{number}": 1 for number in range(100)}), "more than 100 fields"),
    "a number beyond all floats": (ours(arguments={"eta": 10**400}), "its eta is a whole number"),
    "a number that is none": (ours(inputs=[float("nan")]), "a number that is none"),
    "a long field": (png(parameters=f"{TEXT}, Note: {'é' * 40_000}"), "besides prompts"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_file_that_says_nothing_or_what_cannot_be_is_refused_with_the_reason(name: str) -> None:
    content, reason = UNREAD[name]
    with pytest.raises(Unreadable, match=reason):
        told_by(content)


def test_nothing_that_a_file_says_names_a_file_or_code() -> None:
    hostile = {"image": "/etc/passwd", "video": ["a.mp4"], "__class__": 1, "eta": 0.5, "prompt_2": "ball"}
    told = told_by(ours(arguments=hostile | {"lora": {"ink": 0.5, "wash": 1}}, recipe="os:system"))
    own = {"prompt": "a cat", "seed": 3, "eta": 0.5, "prompt_2": "ball", "lora": "ink:0.5+wash:1"}
    assert told.cells == own  # what its text says besides is not of the call
    assert told.others["recipe"] == "os:system"  # carried along, as text
    assert told.others["omitted"] == ["image", "video", "recipe"]


def table_of(folder: Path, **values: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a folder, and what is said of its other files."""
    lines: list[str] = []
    (scratch := folder.parent / "scratch").mkdir(exist_ok=True)
    watch = Callback()
    watch.say = lines.append  # type: ignore[method-assign]
    job = load_job({"table": str(folder), "model": "m", "output": str(folder.parent / "out")} | values)
    return pq.read_table(write_table(job, watch, str(scratch))).to_pylist(), lines


def test_a_folder_becomes_a_table_and_files_that_say_nothing_are_named(tmp_path: Path) -> None:
    for name, content in {
        "a.png": png(parameters=f"a cat\n{LINE}"),
        "b.png": png(),
        "sub/c.mp4": clip(prompt=json.dumps(graph(_5=("KSampler", SECOND)))),
        "d.txt": b"no picture",
        ".hidden.png": png(),
    }.items():
        (path := tmp_path / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(
        TableError, match=r"1 of 3 files .* file 1 \(b.png\): it has no known metadata"
    ) as refused:
        table_of(tmp_path / "old")
    assert "`on_invalid: skip`" in refused.value.fix
    rows, lines = table_of(tmp_path / "old", on_invalid="skip")
    assert [(row["file"], row["prompt"], row["seed"], row["made_with"]) for row in rows] == [
        ("a.png", "a cat", 42, "A1111"),
        ("sub/c.mp4", "a fox", None, "ComfyUI"),
    ]
    assert json.loads(rows[0]["metadata"])["Sampler"] == "Euler a"
    assert lines[0] == "note: read_metadata: not read: 1 .txt"
    assert "left out: 1 of 3 files" in lines[1] and "seed that can be told, e.g. sub/c.mp4" in lines[2]
    job = load_job({"table": str(tmp_path / "old"), "model": "m", "output": str(tmp_path / "out")})
    job = job.model_copy(update={"on_invalid": "skip"})
    assert pq.read_table(place := store_table(job, Callback())).num_rows == 2
    (tmp_path / "old" / "a.png").unlink()
    assert (store_table(job, Callback()), pq.read_table(place).num_rows) == (place, 1)
    (tmp_path / "old" / "sub" / "c.mp4").unlink()
    with pytest.raises(TableError, match="1 of 1 file"):
        table_of(tmp_path / "old", on_invalid="skip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.heic").touch()
    with pytest.raises(TableError, match=r"not a folder of pictures and clips, but of 1 \.heic"):
        table_of(tmp_path / "empty")
    (tmp_path / "empty" / "a.heic").unlink()
    for table in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises((JobError, TableError), match="not a folder of pictures and clips"):
            table_of(table)


@pytest.mark.parametrize(
    ("sweep", "replaced"),
    [
        ({"seed": "0-3"}, ["seed"]),
        ({"prompt": ["{prompt}, at night"], "width": [512, 768]}, ["width"]),
        (
            {
                "prompt": "@prompts.txt",
                "sample": {"num": 2, "over": {"guidance_scale": {"from": 1, "to": 8}}},
            },
            ["guidance_scale"],
        ),
    ],
)
def test_values_of_a_sweep_replace_those_of_the_files(
    sweep: dict[str, Any], replaced: list[str], tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.png").write_bytes(png(parameters=TEXT))
    (row,), lines = table_of(tmp_path / "old", sweep=sweep)
    assert [name for name in CAT if name not in row] == replaced
    assert lines == [f"note: read_metadata: the sweep's values replace those of the files: {replaced[0]}"]


def test_texts_of_our_files_are_cells_and_what_could_name_files_is_reported(tmp_path: Path) -> None:
    texts = {name: f"{name} / text" for name in ("lyrics", "system_prompt", "mode", "transcription")}
    texts |= {"complex_human_instruction": '["a", "b"]'}
    (tmp_path / "old").mkdir()
    instruction = {"complex_human_instruction": ["a", "b"]}
    (tmp_path / "old/a.png").write_bytes(ours(arguments=texts | instruction, recipe="extend"))
    (tmp_path / "old/b.png").write_bytes(ours(arguments={"fonts": ["a.ttf"]}, recipe="mine:render"))
    rows, lines = table_of(tmp_path / "old")
    assert {name: rows[0][name] for name in texts} == texts
    assert "omitted" not in json.loads(rows[0]["metadata"])
    omitted = "left out, since they could name files or code: fonts of b.png, recipe of b.png"
    assert lines == [f"note: read_metadata: {omitted}"]


def test_values_of_any_kind_are_a_column(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for number, eta in enumerate((2**60 + 1, 0.5, True, "linear(1.0, 0.5)")):
        (folder / f"{number}.png").write_bytes(ours(arguments={"eta": eta}, inputs=["\ud800"]))
    rows, _ = table_of(folder)
    assert [row["eta"] for row in rows] == [f"{2**60 + 1}", "0.5", "true", "linear(1.0, 0.5)"]
    assert json.loads(rows[0]["metadata"])["inputs"] == ["?"]
