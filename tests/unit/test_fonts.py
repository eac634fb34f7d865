"""A font of the system is found by the character that is to be drawn, not by its neighbours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from framefleet.plugins.pictures import lettering

THAI = "กขค"  # of a block whose first code point is no character
OTHERS = {"latin": "abc", "thai": THAI, "lao": "ກຂຄ"}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a font for each of these scripts, and no others; returns their folder."""
    if not shutil.which("fc-match"):
        pytest.skip("needs fontconfig")
    for name, letters in OTHERS.items():
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 900), (900, 900), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        square, empty = pen.glyph(), TTGlyphPen(None).glyph()
        names = [f"letter{number}" for number in range(len(letters))]
        font = FontBuilder(1000)
        font.setupGlyphOrder([".notdef", *names])
        font.setupCharacterMap(dict(zip(map(ord, letters), names, strict=True)))
        font.setupGlyf({".notdef": empty, **dict.fromkeys(names, square)})
        font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
        font.setupHorizontalHeader(ascent=900, descent=-100)
        font.setupNameTable({"familyName": name, "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / f"{name}.ttf")
    (tmp_path / "fonts.conf").write_text(
        f"<fontconfig><dir>{tmp_path}</dir><cachedir>{tmp_path / 'cache'}</cachedir></fontconfig>"
    )
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))

    lettering._ask_fontconfig.cache_clear()
    return tmp_path


def test_a_script_whose_block_begins_with_no_character_is_drawn(system: Path) -> None:
    for name, letters in OTHERS.items():
        fonts = [lettering.of_system(letter) for letter in letters]
        assert fonts == [str(system / f"{name}.ttf")] * len(letters)
    assert not lettering.of_system("ฮ"), "no font has it"
