"""Serve a gallery on this machine, and store everybody's stars and notes in the output.

    http://127.0.0.1:PORT/TOKEN/gallery/index.html    the page; besides only media in clips/ and previews/,
                                                      and data in gallery/
    http://127.0.0.1:PORT/TOKEN/picks                 GET: all of them; POST: one change, of one clip

`page_server.py` decides who gets answers. The output is not trusted: page and scripts come from this package,
and of the output's scripts only those that are data are served.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError

from framefleet.api.errors import FramefleetError
from framefleet.api.outputs import Store
from framefleet.api.texts import parse_json
from framefleet.pipeline.outputs.layout import CLIPS, PREVIEWS
from framefleet.plugins.pages.gallery.blocks import is_script
from framefleet.plugins.pages.gallery.gallery import BLOCK, DATA, GALLERY, INDEX, PAGE_FOLDER
from framefleet.plugins.pages.page_server import MEDIA_TYPES, OutputHandler, PageServer
from framefleet.plugins.picks import PickChange, PickKeeper

# The page may ask this server alone, and knows by the second line that it keeps picks.
_MAX_DATA = 1 << 28  # bytes of a block: a thousand rows, whose prompts may be pages
_FILES_ALONE, _ASKS_TOO = b"default-src 'none';", b"default-src 'none'; connect-src 'self';"
_PLACE = b'<meta name="framefleet-picks" content="../picks">'

_PAGE_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
_TYPES = {CLIPS: MEDIA_TYPES, PREVIEWS: MEDIA_TYPES}

log = logging.getLogger(__name__)


_PICK = TypeAdapter(PickChange)


class GalleryServer(PageServer):
    """Serves the gallery of an output, which is written, until it is closed. url: of its page.

    port: 0 takes a free one. Raises JobError where it is taken.
    """

    def __init__(self, store: Store, *, port: int = 0) -> None:
        picks = PickKeeper(store)
        picks.all()  # raises now where the file is damaged
        super().__init__(_Handler, INDEX, store, port=port, picks=picks)


class _Handler(OutputHandler):
    types = _TYPES
    policy = (
        "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data:; media-src 'self'"
    )
    picks: PickKeeper
    pages: frozenset[str] = frozenset(file.name for file in PAGE_FOLDER.iterdir())

    def made(self, path: str) -> tuple[bytes, str] | None:
        folder, _, name = path.partition("/")
        if folder == GALLERY and name in self.pages:
            page = (PAGE_FOLDER / name).read_bytes()
            if path == INDEX:
                page = page.replace(_FILES_ALONE, _ASKS_TOO, 1).replace(b"<head>", b"<head>" + _PLACE, 1)
            return page, _PAGE_TYPES[PurePosixPath(name).suffix]
        if path in DATA or BLOCK.fullmatch(path):
            data = self.store.read_own(path, 0, _MAX_DATA)
            return (data, _PAGE_TYPES[".js"]) if is_script(data) else None
        if path != "picks":
            return None
        picks = [[key, pick.model_dump(exclude={"row_id", "at"})] for key, pick in self.picks.all().items()]
        return json.dumps(picks).encode(), "application/json"

    def take(self, path: str, body: bytes) -> HTTPStatus:
        if path != "picks":
            return HTTPStatus.NOT_FOUND
        try:
            self.picks.change(_PICK.validate_python(parse_json(body)))
        except (ValidationError, ValueError):
            return HTTPStatus.BAD_REQUEST
        except FramefleetError as error:  # the page tries again
            log.warning("%s", error)
            return HTTPStatus.BAD_GATEWAY
        return HTTPStatus.OK
