"""Judging of attacked images, the log of a main job, the command line."""

from __future__ import annotations

import sys

import benchmarks.__main__ as command
import pandas as pd
import pytest
import torch
from benchmarks.attacks import compare, judge
from benchmarks.libraries import LIBRARIES, Ours, Search, Task, attack_all
from benchmarks.main_job import stage_seconds
from benchmarks.measure import Row, Settings
from tests.benchmarks.brightness import Brightness

CPU = Settings(quick=True, device=torch.device("cpu"))


def task_of(kind="bim", **given):
    images = torch.linspace(0.3, 0.49, 5).view(5, 1, 1, 1).expand(5, 1, 4, 4).contiguous()
    labels = torch.zeros(5, dtype=torch.int64)
    return Task(Brightness().eval(), images, labels, None, kind, **{"batch_size": 2, **given})


def test_only_true_successes_within_the_bounds_count():
    task = task_of(epsilon=0.25)
    attacked = task.images.clone()
    attacked[0] += 0.24  # bright enough
    attacked[1] += 0.01  # still dark
    attacked[2] += 0.4  # beyond epsilon
    attacked[3] = float("nan")
    attacked[4] = 0.0  # blacked out

    judged = judge(task, attacked)

    assert judged.success.tolist() == [True, False, False, False, False]
    assert judged.rate == pytest.approx(0.2)
    assert float(judged.l2[0]) == pytest.approx(0.24 * 4, rel=1e-5)
    assert float(judged.linf[0]) == pytest.approx(0.24, rel=1e-5)


def test_images_are_attacked_in_batches_and_gradients_counted():
    task = task_of(epsilon=0.3, steps=10)
    ours = Ours(task)

    attacked = attack_all(ours, task)

    assert [len(batch.images) for batch in task.batches()] == [2, 2, 1]
    assert judge(task, attacked).rate == 1.0
    assert 5 <= ours.evaluations <= 50


def test_every_library_that_is_not_there_has_a_row(monkeypatch):
    monkeypatch.setattr("benchmarks.attacks.installed", lambda name: name == "foolbox")

    rows = list(compare("bim untargeted", task_of(), ("foolbox", "ART"), CPU))

    assert [row.name for row in rows] == ["bim untargeted: foolbox / ours", "bim untargeted: ART / ours"]
    assert rows[0].outcome["success"] == rows[0].outcome["other_success"] == 1.0
    assert rows[1].verdict == "not measured"
    assert "ART is not installed" in rows[1].note


def test_a_library_that_fails_does_not_end_the_comparison(monkeypatch):
    def fails(_task):
        raise RuntimeError("wrong device")

    monkeypatch.setitem(LIBRARIES, "foolbox", ("foolbox", fails))

    (row,) = compare("bim untargeted", task_of(), ("foolbox",), CPU)

    assert (row.verdict, row.note) == ("not measured", "RuntimeError: wrong device")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["bim", "pgd", "mi-fgsm", "cw"])
def test_the_libraries_do_the_same_attack(library, kind):
    pytest.importorskip(LIBRARIES[library][0])
    task = task_of(kind, search=Search(steps=50, rounds=2, step_size=0.1, const=10.0), batch_size=8)

    judged = judge(task, attack_all(LIBRARIES[library][1](task), task))

    assert judged.rate == 1.0
    if kind != "cw":
        assert float(judged.linf.max()) <= 0.3 + 1e-5


def test_cw_without_its_settings_is_refused():
    with pytest.raises(ValueError, match="settings of the search"):
        Ours(task_of("cw"))


def test_stages_add_up_to_the_time_of_the_run():
    log = (
        "23:59:50 INFO    Using synchronous mode for loading\n23:59:58 INFO    Completed node: train_target\n"
        "00:00:08 INFO    Completed node: generate_adversarials\n00:00:09 INFO    Completed node: collect_records\n"
        "00:00:12 INFO    Completed node: render_report\n"
    )

    assert stage_seconds(log) == {"network": 8, "attacks": 11, "evaluation and report": 3}
    with pytest.raises(RuntimeError, match="nowhere"):
        stage_seconds("")


def test_the_command_writes_what_was_measured_although_a_subject_failed(tmp_path, monkeypatch, capsys):
    def works(_settings):
        yield Row("medoids", "n = 10", (12.0,), "", 10.0)

    def fails(_settings):
        yield Row("growth", "before", (1.0,), "")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(command, "SUBJECTS", {"growth": fails, "medoids": works})
    out = tmp_path / "b.md"

    code = command.main(["--quick", "--out", str(out)])

    assert code == 1
    assert "failed: growth" in capsys.readouterr().err
    assert "| n = 10 | 12.00 |  | >= 10 | met |  |" in out.read_text()
    (results,) = tmp_path.glob("*-quick.parquet")
    assert list(pd.read_parquet(results)["comparison"]) == ["n = 10"]


def test_a_subject_that_fails_midway_keeps_its_old_rows(tmp_path, monkeypatch):
    def works(_settings):
        yield Row("growth", "old", (1.0,), "")
        yield Row("growth", "older", (2.0,), "")

    def fails(_settings):
        yield Row("growth", "new", (3.0,), "")
        raise RuntimeError("out of memory")

    def other(_settings):
        yield Row("medoids", "n = 10", (12.0,), "")

    for growth in (works, fails):
        monkeypatch.setattr(command, "SUBJECTS", {"growth": growth, "medoids": other})
        command.main(["--quick", "--out", str(tmp_path / "b.md")])

    (results,) = tmp_path.glob("*.parquet")
    assert list(pd.read_parquet(results)["comparison"]) == ["old", "older", "n = 10"]


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (1000.0, True)])
def test_a_busy_machine_is_told_of(tmp_path, monkeypatch, capsys, load, busy):
    monkeypatch.setattr(command, "load_average", lambda: load)
    monkeypatch.setattr(command, "SUBJECTS", {"ray": lambda _settings: iter([Row("ray", "two", (1.5,), "")])})
    out = tmp_path / "b.md"

    command.main(["--quick", "--out", str(out)])

    assert ("warning: load" in capsys.readouterr().err) is busy
    assert ("busy with other work" in out.read_text()) is busy
    assert f"{load:.1f} after" in out.read_text()


def test_a_quick_run_writes_nothing_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "SUBJECTS", {"ray": lambda _settings: iter([Row("ray", "two", (1.5,), "")])})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])

    assert command.main() == 0
    assert not list(tmp_path.iterdir())
