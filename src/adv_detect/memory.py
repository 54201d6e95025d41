"""Memory that the C library keeps instead of giving it back to the system."""

from __future__ import annotations

import ctypes
import os
import platform

KEPT = 1_000_000_000
"""Bytes up to which freed memory stays with the process."""
VARIABLES = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""Environment variables of glibc, with the numbers of the same settings in malloc.h."""


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory in the process: gradient work on a CPU is up to twice as fast.

    Each step of an attack frees tensors of the sizes that the next one asks for. Given back to the system, each of
    their pages is cleared and mapped again. What the user's environment sets stays as it is.

    Returns:
        Whether freed memory is kept; False where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(bool(library.mallopt(number, KEPT)) for name, number in VARIABLES.items() if name not in os.environ)
