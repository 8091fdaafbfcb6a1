"""Text that comes from a file system: names of any bytes, in any normal form of Unicode."""

import re
import unicodedata

# Python reads a byte that is not UTF-8 as one of these characters, which no encoding can write.
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2}|ud[0-9a-f]{3})")


def writable(name: str) -> str:
    r"""Return a name that every file and terminal can hold: a byte that is not UTF-8 becomes ``\xe9``.

    Different names stay different: the backslash of a name that looks like such an escape becomes ``\x5c``.
    """
    if name.isascii() and "\\" not in name:
        return name
    return escape_surrogates(_LOOKS_ESCAPED.sub(r"\\x5c", name))


def escape_surrogates(text: str) -> str:
    r"""Write each byte that is not UTF-8 as ``\xe9``."""
    return _SURROGATE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def normalized(name: str) -> str:
    """Compose accents (NFC): macOS stores names with accents apart (NFD), and people type them composed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
