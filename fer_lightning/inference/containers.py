"""Recognise containers of video by how their files begin."""

import struct
from pathlib import Path

_HEAD = 512  # bytes
_STILLS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"crx ")
_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # of QuickTime before ftyp
_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"OggS",
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
)
_PACKETS = ((0, 188), (4, 192))  # of a transport stream: the first sync byte, and the bytes of a packet


def is_video_content(path: Path) -> bool:
    """Return whether a file begins like a video: MP4, MOV, AVI, Matroska, Ogg, FLV, ASF or MPEG.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[4:8] == b"ftyp":
        return head[8:12] not in _STILLS
    if head[4:8] in _BOXES or head.startswith(_STARTS):
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] == b"AVI "
    return any(
        len(head) > start + size and head[start] == head[start + size] == 0x47 for start, size in _PACKETS
    )


def lacks_index(path: Path) -> bool:
    """Return whether an MP4 or QuickTime file is broken off before its index, the box ``moov``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place, names = 0, list[bytes]()
        while place + 8 <= size and len(names) < 1000:
            file.seek(place)
            head = file.read(16)
            length, name = struct.unpack(">I4s", head[:8])
            if length == 1 and len(head) == 16:  # of 64 bits
                (length,) = struct.unpack(">Q", head[8:])
            names.append(name)
            if length < 8:  # up to the end, or damaged
                break
            place += length
    return names[:1] == [b"ftyp"] and b"moov" not in names
