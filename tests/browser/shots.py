"""The pictures of docs/gallery.md: a gallery as people see it, on a desk and on a phone, light and dark."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.browser.chromium import PHONE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DESK = {"width": 1280, "height": 760}
# File -> screen, scheme, the page's address, keys to press.
SHOTS: dict[str, tuple[Any, Any, str, tuple[str, ...]]] = {
    "gallery": (DESK, "light", "#q=guidance_scale%3D2.5+seed%3D3&size=150", ("f",)),
    "gallery-grid": (DESK, "dark", "#view=grid&x=seed&y=guidance_scale&page=prompt&size=100", ()),
    "gallery-phone": (PHONE, "dark", "#q=guidance_scale%3D2.5+seed%3D5", ()),
}
_SETTLED = "[...document.querySelectorAll('.tile img')].every((image) => image.complete)"


def take_shots(opened: Browser, url: str, folder: Path) -> None:
    """Write a .webp for each."""
    for name, (screen, scheme, address, keys) in SHOTS.items():
        scale = 2 if screen is PHONE else 1
        page = opened.new_page(viewport=screen, color_scheme=scheme, device_scale_factor=scale)
        page.goto(f"{url}{address}")
        page.wait_for_selector("body[data-ready]")
        for key in keys:
            page.keyboard.press(key)
        while not page.evaluate(_SETTLED):
            page.wait_for_timeout(50)
        page.wait_for_timeout(1500)  # clips are under way
        Image.open(io.BytesIO(page.screenshot())).save(folder / f"{name}.webp", quality=80, method=6)
        page.close()
