"""A hook of mkdocs: pages of the site are the documents of the repository, at their places: links hold."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "pipeline", "cluster", "jobs", "plugins", "examples", "tests", "tools")
SHOWN = {".md", ".png", ".webp", ".gif", ".svg", ".yaml", ".txt"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Return the documents of the whole repository in place of those of docs/, beside the theme's files."""
    of_theme = [file for file in files if file.src_dir != config.docs_dir]
    paths = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    pages = [path.relative_to(ROOT) for path in sorted(paths) if path.suffix in SHOWN]
    ours = [File(path.as_posix(), str(ROOT), config.site_dir, use_directory_urls=False) for path in pages]
    return Files([*of_theme, *ours])
