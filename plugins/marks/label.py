"""The label that says in a file's metadata that a model made it: as GB 45438-2025 and IPTC have it; and back.

The Chinese label is one JSON object called AIGC, of the seven fields of annex E. Where it lies follows the
guides of TC260 (PG-20257A for videos, 20259A for pictures, 202510A for sound). IPTC's word is a property of
an XMP packet. Formats that have no place for it get the packet as a file next to them.
"""

from __future__ import annotations

import html
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from framefleet.api.texts import parse_json
from framefleet.plugins.marks.settings import Provider

# IPTC's word for what a trained model made.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
AIGC = "AIGC"  # the key of tags, and the name of a RIFF chunk
IPTC_SPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_TC260_SPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP's UUID in ISO files
_FIELDS = ("Label", "ContentProducer", "ProduceID")  # without which it is something else
_SOURCE = re.compile(rb"digitalsourcetype/([A-Za-z]{1,64})")
# Places that are looked at in a file, which may be anybody's, and bytes around each.
_MOST, _REACH = 64, 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLabel:
    """source_type: IPTC's word for how a file was made; aigc: the fields of the Chinese label."""

    source_type: str | None = None
    aigc: tuple[tuple[str, str], ...] = ()


def aigc_label(provider: Provider, row_id: str) -> str:
    """Return the Chinese label. Of a file that nobody has published the fields of publishers are empty."""
    fields = {
        "Label": "1",  # it is generated
        "ContentProducer": provider.label_code,
        "ProduceID": row_id,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    return json.dumps(fields, separators=(",", ":"))


def xmp_packet(provider: Provider, row_id: str, *, aigc: bool = True) -> bytes:
    """Return IPTC's properties, and the Chinese label. aigc: the latter; a file is to have it only once."""
    properties = {"Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE}
    properties |= {"Iptc4xmpExt:AISystemUsed": provider.system} if provider.system else {}
    properties |= {"Iptc4xmpExt:AISystemVersionUsed": provider.version} if provider.version else {}
    properties |= {"TC260:AIGC": aigc_label(provider, row_id)} if aigc else {}
    elements = "".join(
        f"<{name}>{escape(text, {chr(34): '&quot;'})}</{name}>" for name, text in properties.items()
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:Iptc4xmpExt="{IPTC_SPACE}" xmlns:TC260="{_TC260_SPACE}">'
        f'{elements}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def with_xmp_box(content: bytes, packet: bytes) -> bytes:
    """Return an mp4 with a packet at its end."""
    return content + struct.pack(">I4s16s", 24 + len(packet), b"uuid", _XMP_BOX) + packet


def with_chunks(content: bytes, **chunks: bytes) -> bytes:
    """Return a wav with chunks at its end, by their names of four letters."""
    for name, body in chunks.items():
        content += struct.pack("<4sI", name.encode(), len(body)) + body + b"\0" * (len(body) % 2)
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def label_in(content: bytes) -> FoundLabel | None:
    """Return what a file's metadata say, or a packet next to it; None where they say nothing of the kind.

    Anybody can write or remove it. XMP is made to be found in any file; it is not parsed as XML, which may be
    a bomb. Of several labels the first counts.
    """
    packets = _pieces(content, b"Iptc4xmpExt:DigitalSourceType", b"", b"DigitalSourceType")
    source = next((match[1].decode() for piece in packets if (match := _SOURCE.search(piece))), None)
    aigc: tuple[tuple[str, str], ...] = ()
    for piece in _pieces(content, b"ContentProducer", b"{", b"}"):
        try:
            fields = parse_json(html.unescape(piece.decode()))
        except ValueError:
            continue
        if isinstance(fields, dict) and all(isinstance(fields.get(name), str) for name in _FIELDS):
            aigc = tuple((name, text) for name, text in fields.items() if isinstance(text, str))
            break
    return FoundLabel(source_type=source, aigc=aigc) if source or aigc else None


def _pieces(content: bytes, word: bytes, first: bytes, last: bytes) -> Iterator[bytes]:
    """Yield what lies around a word, from `first` on, if any, up to `last`."""
    at = -1
    for _ in range(_MOST):
        at = content.find(word, at + 1)
        if at < 0:
            return
        begin = content.rfind(first, max(0, at - _REACH), at) if first else at
        end = content.find(last, at + len(word), at + _REACH)
        if begin >= 0 and end >= 0:
            yield content[begin : end + len(last)]
