"""Text files that people write: UTF-8, with or without a byte-order mark, any line ends."""

from __future__ import annotations

import codecs
from pathlib import Path

from adv_detect.errors import DataError

MARK = "\ufeff"
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | Path) -> str:
    """Read a text file.

    Args:
        path: The file.

    Returns:
        Its text without a byte-order mark.

    Raises:
        OSError: It cannot be read.
        DataError: It is not in UTF-8.
    """
    return plain_text(Path(path).read_bytes(), source=str(path))


def plain_text(content: bytes | str, *, source: str) -> str:
    """Take a text, or its bytes in UTF-8, without the byte-order mark that some editors write.

    Args:
        content: Bytes of a file, or text that was decoded already.
        source: What to call it in errors.

    Returns:
        The text.

    Raises:
        DataError: It is in UTF-16 or another encoding.
    """
    if isinstance(content, bytes):
        if content.startswith(WIDE_MARKS):
            raise _wrong(source, "UTF-16")
        try:
            content = content.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise _wrong(source, f"another encoding ({exc})") from exc
    if "\0" in content:
        raise _wrong(source, "NUL characters, as UTF-16 read as UTF-8 has")
    return content.removeprefix(MARK)


def _wrong(source: str, got: str) -> DataError:
    return DataError(f"{source}: expected text in UTF-8, got {got}; save it as UTF-8")
