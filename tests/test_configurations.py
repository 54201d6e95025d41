"""What passes the checks runs to its end; what does not names key and value.

More of them: ``python -m tests.configurations``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner
from tests.configurations import Project, broken_configurations, legal_configurations, merged, try_broken
from tests.projects import new_project

from adv_detect.errors import ConfigurationError
from adv_detect.params import BLOCKS

BROKEN, LEGAL = 400, 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny project in a folder of its own, on one thread."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tiny"))
        torch.set_num_threads(1)
        yield Project()
        torch.set_num_threads(threads)


def test_every_broken_configuration_is_refused_by_name(tiny):
    faults = [try_broken(tiny, *one) for one in broken_configurations(tiny, BROKEN, seed=1)]

    assert len(faults) == BROKEN
    assert [one for one in faults if one] == []
    assert list(Path.cwd().iterdir()) == []


def test_every_value_of_every_block_is_drawn_from(tiny):
    keys = {leaf.key.split(".")[0] for leaf in tiny.leaves()}

    assert keys == set(BLOCKS)


def test_legal_values_pass_or_do_not_fit_together(tiny):
    outcomes = [fault(tiny, parameters) for parameters, _ in legal_configurations(tiny, LEGAL, seed=1)]
    refused = [one for one in outcomes if one]

    assert len(refused) < LEGAL / 2
    odd = [one for one in refused if not any(word in one for word in ("expected", "needs", "only with"))]
    assert not odd


def fault(project, parameters):
    try:
        project.check(parameters)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def test_detectors_of_one_criterion_run_to_the_report(tiny):
    configurations = dict.fromkeys(("density", "multiview"))
    changes = {
        "detector_training": {"criteria": ["untargeted"], "configurations": configurations},
        "adaptive_attack": {"trained_criteria": ["untargeted"]},
        "adversarial_generation": {"attacks": {"cw": None}},
    }
    catalog = tiny.check(merged(tiny.parameters, changes))

    SequentialRunner().run(pipelines["__default__"], catalog)

    metrics = catalog.load("detection_metrics")
    learned = metrics[(metrics["kind"] != "control") & (metrics["trained_criterion"] != "none")]
    assert set(learned["trained_criterion"]) == {"untargeted"}
    assert set(learned["criterion"]) == {"targeted", "untargeted"}
    assert "Detection of adversarial attacks" in catalog.load("report")


@pytest.mark.parametrize(
    ("pipeline", "parameters", "message"),
    [
        ("__default__", {"adverserial_generation": {}}, "did you mean 'adversarial_generation'"),
        (
            "evaluation",
            {"detector_training": {"fit": {"epoch": 3}}},
            "detector_training.fit: expected keys of .*'epochs'",
        ),
        (
            "target_training",
            {"evaluation": {"bootstrap": "ten"}},
            "evaluation.bootstrap: expected a whole number, got 'ten'",
        ),
    ],
)
def test_the_command_line_is_checked_whatever_pipeline_is_asked_for(project, tmp_path, pipeline, parameters, message):
    folder = new_project(tmp_path / "project", project)
    bootstrap_project(folder)

    with (
        KedroSession.create(project_path=folder, env="test", runtime_params=parameters) as session,
        pytest.raises(ConfigurationError, match=message),
    ):
        session.run(pipeline_names=[pipeline])

    assert not (folder / "data").exists()
    assert not (folder / "mlflow.db").exists()
