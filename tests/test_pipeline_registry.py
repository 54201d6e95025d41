"""The report ends every pipeline that tells something."""

from __future__ import annotations

import pytest
from kedro.framework.project import configure_project, pipelines

from adv_detect.pipeline_registry import register_pipelines
from adv_detect.reporting import PARTS

PARTED = {"__default__", "evaluation", "adaptive_attack", "face_recognition", "calibration"}


@pytest.fixture(scope="module")
def registered():
    configure_project("adv_detect")
    return register_pipelines()


def test_pipelines_with_a_part_end_with_the_report(registered):
    rendering = {name for name, one in registered.items() if "report" in one.all_outputs()}

    assert rendering == PARTED | {"reporting"}
    assert all(registered[name].nodes[-1].name == "render_report" for name in rendering)


def test_every_part_that_a_pipeline_writes_is_in_the_report(registered):
    written = {name for one in registered.values() for name in one.all_outputs() if name.endswith("_part")}

    assert written == set(PARTS)


def test_pipelines_that_run_together_render_once_after_all_parts(registered):
    together = sum((registered[name] for name in sorted(PARTED)), start=registered["reporting"])
    names = [node.name for node in together.nodes]

    assert names.count("render_report") == 1
    writers = [node.name for node in together.nodes if set(node.outputs) & set(PARTS)]
    assert len(writers) == len(PARTS)
    assert max(map(names.index, writers)) < names.index("render_report")


def test_one_pipeline_alone_is_registered_with_the_report(monkeypatch):
    configure_project("adv_detect")
    monkeypatch.setattr(pipelines, "_requested_pipelines", ["adaptive_attack"])

    assert "render_report" in {node.name for node in register_pipelines()["adaptive_attack"].nodes}
