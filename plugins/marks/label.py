"""Write and read labels in a file's metadata that say that a model made it, by GB 45438-2025 and IPTC.

The Chinese label is a JSON object named AIGC, with the seven fields of annex E. Its place follows the guides
of TC260 (PG-20257A for videos, 20259A for pictures, 202510A for sound). IPTC's term is a property in an XMP
packet. If a format has no place for the packet, it is a file next to the clip.
"""

from __future__ import annotations

import html
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from framefleet.api.texts import parse_object
from framefleet.plugins.marks.settings import Provider

# IPTC's term for media made by a trained model.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
AIGC = "AIGC"  # key of tags, and name of a RIFF chunk
IPTC_SPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_TC260_SPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP's UUID in ISO files
_FIELDS = ("Label", "ContentProducer", "ProduceID")  # required; otherwise it is something else
_SOURCE = re.compile(rb"digitalsourcetype/([A-Za-z]{1,64})")
# Places to look at in an untrusted file, and bytes around each.
_MOST, _REACH = 64, 1 << 12
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLabel:
    """source_type: IPTC's term for how a file was made; aigc: the fields of the Chinese label."""

    source_type: str | None = None
    aigc: tuple[tuple[str, str], ...] = ()


def aigc_label(provider: Provider, row_id: str) -> str:
    """Return the Chinese label. The publisher's fields are empty, as the file is not published yet."""
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
    """Return a packet with IPTC's properties. aigc: also the Chinese label, allowed once per file."""
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
    """Append a packet to an mp4."""
    return content + struct.pack(">I4s16s", 24 + len(packet), b"uuid", _XMP_BOX) + packet


def with_chunks(content: bytes, **chunks: bytes) -> bytes:
    """Append chunks to a wav, by their names of four letters."""
    for name, body in chunks.items():
        content += struct.pack("<4sI", name.encode(), len(body)) + body + b"\0" * (len(body) % 2)
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def label_in(content: bytes) -> FoundLabel | None:
    """Return the label in a file's metadata, or in a packet next to it, or None.

    Anybody can write or remove it. XMP can be found in any file. It is not parsed as XML, which could be a
    bomb. The first of several labels counts.
    """
    packets = _pieces(content, b"Iptc4xmpExt:DigitalSourceType", b"DigitalSourceType")
    source = next((match[1].decode() for piece in packets if (match := _SOURCE.search(piece))), None)
    aigc: tuple[tuple[str, str], ...] = ()
    for at in _places(content, b"ContentProducer"):
        begin = content.rfind(b"{", max(0, at - _REACH), at)
        fields = parse_object(_json_at(content, begin)) if begin >= 0 else {}
        if all(isinstance(fields.get(name), str) for name in _FIELDS):
            aigc = tuple((name, text) for name, text in fields.items() if isinstance(text, str))
            break
    return FoundLabel(source_type=source, aigc=aigc) if source or aigc else None


def _places(content: bytes, word: bytes) -> Iterator[int]:
    at = -1
    for _ in range(_MOST):
        at = content.find(word, at + 1)
        if at < 0:
            return
        yield at


def _pieces(content: bytes, word: bytes, last: bytes) -> Iterator[bytes]:
    """Yield the bytes from a word to `last`."""
    for at in _places(content, word):
        end = content.find(last, at + len(word), at + _REACH)
        if end >= 0:
            yield content[at : end + len(last)]


def _json_at(content: bytes, begin: int) -> str:
    """Return the JSON that begins there, in a file or in XML; "" without one."""
    piece = content[begin : begin + 2 * _REACH]
    before = content[max(0, begin - _REACH) : begin].rstrip()[-1:]
    try:
        if before in (b">", b'"', b"'"):  # the text of an element or an attribute, whose end is not in it
            return html.unescape(piece.partition(b"<" if before == b">" else before)[0].decode())
        # What follows need not be text: with Latin-1, its length is the number of bytes.
        _, length = _DECODER.raw_decode(piece.decode("latin-1"))
        return piece[:length].decode()
    except (ValueError, RecursionError):
        return ""
