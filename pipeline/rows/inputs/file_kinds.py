"""In: the first bytes of a file. Out: what they say that it is, so that a refusal can name it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from framefleet.pipeline.model.specs.signature import MediaKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """kind: None for what is neither. name: as people call the format."""

    kind: MediaKind | None
    name: str

    def __str__(self) -> str:
        article = {"image": "an image", "video": "a video", "audio": "a sound"}
        return f"{article[self.kind]} ({self.name})" if self.kind else self.name


# The first that fits counts.
_SIGNATURES: tuple[tuple[bytes, MediaKind | None, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "image", "png"),
    (rb"\xff\xd8\xff", "image", "jpeg"),
    (rb"RIFF....WEBP", "image", "webp"),
    (rb"BM", "image", "bmp"),
    (rb"II\*\0|MM\0\*", "image", "tiff"),
    (rb"GIF8", "image", "gif"),
    (rb"8BPS", "image", "psd"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "image", "eps"),
    (rb"....(jP  |ftypjp2)", "image", "jpeg 2000"),
    (rb"\xff\x0a|....JXL ", "image", "jpeg xl"),
    (rb"....ftypavi", "image", "avif"),
    (rb"....ftyp(hei|mif1)", "image", "heic"),
    (rb"\s*<svg", "image", "svg"),
    (rb"RIFF....WAVE", "audio", "wav"),
    (rb"fLaC", "audio", "flac"),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "audio", "mp3"),
    (rb"\xff[\xf1\xf9]", "audio", "aac"),
    (rb"....ftypM4A ", "audio", "m4a"),
    (rb"....(ftypqt|moov)", "video", "mov"),
    (rb"....ftyp", "video", "mp4"),
    (rb"\x1a\x45\xdf\xa3", "video", "mkv or webm"),
    (rb"RIFF....AVI ", "video", "avi"),
    (rb"FLV\x01", "video", "flv"),
    (rb"OggS", "video", "ogg"),
    (rb"\0\0\x01\xba", "video", "mpeg"),
    (rb"G.{187}G", "video", "mpeg-ts"),
    (rb"\x30\x26\xb2\x75", "video", "wmv"),
    (rb"%PDF", None, "a PDF"),
    (rb"PK\x03\x04", None, "a zip file"),
    (rb"\x1f\x8b", None, "a gzip file"),
    (rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html)", None, "a web page"),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", None, "an XML document"),
)
_PATTERNS = tuple(
    (re.compile(pattern, re.DOTALL), FileKind(kind=kind, name=name)) for pattern, kind, name in _SIGNATURES
)


def file_kind(content: bytes) -> FileKind | None:
    """Return what a file says that it is; None when it says nothing that is known here."""
    start = content[:512]
    return next((kind for pattern, kind in _PATTERNS if pattern.match(start)), None)
