from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from adv_detect.errors import DamagedFileError, WorkerError
from adv_detect.workers import TaskError, Workers, close_workers, run_in_workers

SECONDS = 60.0


@pytest.fixture(scope="module")
def workers():
    """Two processes for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        started = Workers(2)
        yield started
        started.close()
    assert not multiprocessing.active_children()


def run(workers, work, tasks):
    found = {}
    workers.run(work, tasks, found.__setitem__)
    return [found[position] for position in range(len(tasks))]


def test_results_come_with_their_positions_from_processes_of_one_thread(workers):
    def work(number):
        import torch

        return number**2, os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    results = run(workers, work, range(6))

    assert [one[0] for one in results] == [0, 1, 4, 9, 16, 25]
    assert 1 <= len({one[1] for one in results} - {os.getpid()}) <= 2
    assert {one[2:] for one in results} == {(1, "1")}
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_the_same_processes_do_the_next_piece_of_work(workers):
    one = {pid for _ in range(3) for pid in run(workers, lambda _: os.getpid(), range(4))}
    assert len(one) <= 2


def test_workers_of_this_process_are_started_once_and_threads_take_turns():
    found = []

    def note(_position, process):
        found.append(process)

    threads = [
        threading.Thread(target=run_in_workers, args=(2, lambda _: os.getpid(), range(5), note)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(found) == 15
    assert len(set(found)) <= 2

    run_in_workers(1, lambda _: os.getpid(), [0], note)
    assert found[-1] not in found[:-1]
    assert [one.pid for one in multiprocessing.active_children() if one.pid in found] == [found[-1]]
    close_workers()
    assert not {one.pid for one in multiprocessing.active_children()} & set(found)


def test_a_worker_may_start_processes_and_sends_tensors_by_value(workers):
    def work(number):
        import torch
        from torch.utils.data import DataLoader

        return next(iter(DataLoader(torch.full((2,), number), batch_size=2, num_workers=1)))

    results = run(workers, work, [3, 4])
    assert [one.tolist() for one in results] == [[3, 3], [4, 4]]


def test_a_copy_of_the_package_before_it_on_the_path_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "adv_detect").mkdir()
    (tmp_path / "adv_detect/__init__.py").write_text("")  # as the code of a stored model, which has some modules only
    monkeypatch.syspath_prepend(tmp_path)
    started = Workers(1)

    assert run(started, lambda number: number + 1, [1]) == [2]

    started.close()


def test_what_is_logged_there_is_logged_here(workers, caplog):
    def work(number):
        logging.getLogger("adv_detect.elsewhere").warning("image %d is dark", number)

    with caplog.at_level(logging.INFO):
        run(workers, work, [7])

    assert [(one.name, one.getMessage(), one.levelname) for one in caplog.records] == [
        ("adv_detect.elsewhere", "image 7 is dark", "WARNING")
    ]


def test_an_error_names_its_task_and_comes_as_it_was(workers):
    def work(number):
        if number == 3:
            raise DamagedFileError("a.png", "it ends early", "copy it again")

    with pytest.raises(TaskError) as caught:
        run(workers, work, [1, 2, 3])

    cause = caught.value.__cause__
    assert caught.value.position == 2
    assert isinstance(cause, DamagedFileError)
    assert str(cause) == "a.png is damaged (it ends early); copy it again"
    assert "in work" in cause.__notes__[0]
    assert not multiprocessing.active_children()


def test_an_error_that_cannot_be_sent_keeps_name_and_message(workers):
    def work(_):
        class OwnError(Exception):
            def __init__(self, one, two):
                super().__init__(f"{one} and {two}")

        raise OwnError("one", "two")

    with pytest.raises(TaskError) as caught:
        run(workers, work, [0])
    assert (type(caught.value.__cause__).__name__, str(caught.value.__cause__)) == ("OwnError", "one and two")


def test_a_killed_process_is_an_error_that_says_how_it_ended(workers):
    def work(_):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TaskError) as caught:
        run(workers, work, [0])

    assert isinstance(caught.value.__cause__, WorkerError)
    assert "signal SIGKILL of the one at this task" in str(caught.value.__cause__)
    assert run(workers, lambda number: number, [5]) == [5]


def test_an_interruption_ends_processes_that_are_at_work(workers):
    def interrupt(_position, _result):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        workers.run(time.sleep, [0.0, SECONDS], interrupt)
    assert time.monotonic() - started < SECONDS / 2
    assert not multiprocessing.active_children()


SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    from adv_detect.workers import run_in_workers

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes those in the background ignore it

    print("started")

    class Own:
        def __init__(self, folder): self.folder = folder
        def __call__(self, number):
            Path(self.folder, str(os.getpid())).touch()
            time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
            return number + 1

    run_in_workers(2, Own(sys.argv[1]), [1, 2], lambda position, result: print(position, result))
"""


def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def test_a_script_without_a_guard_runs_once_with_classes_of_its_own(tmp_path):
    folder = tmp_path / "pids"
    folder.mkdir()
    ended = subprocess.run(
        [sys.executable, script(tmp_path), folder], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.splitlines()) == ["0 2", "1 3", "started"]


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path("/proc", str(process), "stat")
    return not (status.exists() and ") Z " in status.read_text())


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    assert condition()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path, sent):
    folder = tmp_path / "pids"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, script(tmp_path), folder, str(10 * SECONDS)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: len(list(folder.iterdir())) == 2)
    pids = [int(one.name) for one in folder.iterdir()]
    assert all(map(is_there, pids))

    process.send_signal(sent)

    assert process.wait(SECONDS) != 0
    wait_until(lambda: not any(map(is_there, pids)))
