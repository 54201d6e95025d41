"""One run at a time writes into a folder of results; a lock ends with its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from adv_detect.errors import BusyError
from adv_detect.locks import HOLDER, LOCK, RunLock

HOLD = """
import sys, time
from pathlib import Path
from adv_detect.locks import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(folder, seconds: float) -> subprocess.Popen[str]:
    """Another process that has the lock."""
    arguments = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_who_holds_the_lock_is_said_and_a_killed_process_frees_it(tmp_path):
    process = hold(tmp_path, 60)
    try:
        with pytest.raises(BusyError) as caught:
            RunLock(tmp_path).acquire()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    holder = json.loads((tmp_path / HOLDER).read_text())
    assert f"process {process.pid} on {os.uname().nodename}, since 20" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "runtime.wait_seconds" in str(caught.value)
    assert holder["command"].startswith("-c ")
    with RunLock(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
    assert (tmp_path / LOCK).exists()
    assert not (tmp_path / HOLDER).exists()


def test_a_run_that_waits_gets_the_lock_when_the_other_one_ends(tmp_path):
    process = hold(tmp_path, 0.6)
    begin = time.monotonic()
    with RunLock(tmp_path, wait_seconds=60):
        waited = time.monotonic() - begin
    process.wait()

    assert 0.1 < waited < 30


def test_waiting_ends(tmp_path):
    with RunLock(tmp_path), pytest.raises(BusyError):
        RunLock(tmp_path, wait_seconds=0.2).acquire()


def test_a_lock_may_be_given_back_by_another_thread_and_twice(tmp_path):
    lock = RunLock(tmp_path).acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    lock.release()

    with RunLock(tmp_path):
        pass


def test_environments_do_not_wait_for_each_other(tmp_path):
    with RunLock(tmp_path / "data"), RunLock(tmp_path / "data" / "mine"):
        pass


def test_a_holder_that_has_not_written_who_it_is(tmp_path):
    with RunLock(tmp_path):
        (tmp_path / HOLDER).write_text("{")
        with pytest.raises(BusyError, match="got one that has just begun"):
            RunLock(tmp_path).acquire()
