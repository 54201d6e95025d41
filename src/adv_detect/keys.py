"""Names that become files and folders: of shards, and of what a configuration names."""

from __future__ import annotations

TEMPORARY = ".tmp-"
MAX_NAME_BYTES = 200
"""File systems take 255; an ending and the prefix of a temporary file are added."""
MAX_KEY_BYTES = 900
"""Object stores take 1,024 with the folder."""
REFUSED = ("/", "\\", "*", "?", "[", "]", TEMPORARY)
"""Signs of paths and patterns: moving a file on a remote store reads its name as a pattern."""
NAME_RULE = (
    f"expected 1 to {MAX_NAME_BYTES} bytes of printable characters, without any of {' '.join(REFUSED)}, "
    "not '.' or '..', not starting with '_'"
)
KEY_RULE = f"expected names joined by '/', {MAX_KEY_BYTES} bytes at most; of each name {NAME_RULE}"


def is_name(name: str) -> bool:
    """Tell whether a text can name a file or folder everywhere.

    Args:
        name: Name of an attack or a detector configuration, or a part of a shard key.

    Returns:
        True where it follows ``NAME_RULE``.
    """
    if not name.isprintable() or any(part in name for part in REFUSED):  # also refuses NUL and newline
        return False
    return name not in ("", ".", "..") and not name.startswith("_") and len(name.encode()) <= MAX_NAME_BYTES


def is_key(key: str) -> bool:
    """Tell whether a text can be the key of a shard.

    Args:
        key: Names joined by ``/``.

    Returns:
        True where it follows ``KEY_RULE``.
    """
    return all(is_name(name) for name in key.split("/")) and len(key.encode()) <= MAX_KEY_BYTES
