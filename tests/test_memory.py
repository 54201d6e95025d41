from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from adv_detect.memory import VARIABLES, keep_freed_memory

FAULTS = """
import resource, sys
from adv_detect.memory import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else None)
blocks = [bytes(range(256)) * 4096 for _ in range(8)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [bytes(range(256)) * 4096 for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Counts pages that the system maps anew while blocks of a megabyte are freed and asked for again."""


def faults(argument: str, **variables: str) -> tuple[str, int]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [sys.executable, "-c", FAULTS, argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_without_the_system():
    said, kept = faults("kept")
    _, given_back = faults("given back")

    assert said == "True"
    assert given_back > 20 * 8 * 4  # megabytes in huge pages at the least
    assert kept < given_back / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_the_user_sets_stays():
    small = dict.fromkeys(VARIABLES, "65536")

    assert faults("kept", **small)[1] > 20 * 8 * 4


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))

    assert keep_freed_memory() is False
