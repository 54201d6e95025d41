"""Names that a command gives and that do not exist are answered with those that do."""

from __future__ import annotations

import re

import mlflow
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline, node
from tests.projects import new_project

from adv_detect.choices import check_selection
from adv_detect.environments import check_environment
from adv_detect.errors import ConfigurationError
from adv_detect.session import CheckedSession

PIPELINE = Pipeline(
    [
        node(len, "images", "count", name="count_images", tags="counting"),
        node(abs, "count", "size", name="measure", namespace="outer.inner", tags="measuring"),
    ]
)


@pytest.fixture(scope="module")
def folder(project, tmp_path_factory):
    return new_project(tmp_path_factory.mktemp("choices"), project)


def run(folder, kind=CheckedSession, env="test", **selection):
    tracking = mlflow.get_tracking_uri()
    try:
        bootstrap_project(folder)
        with kind.create(project_path=folder, env=env) as session:
            session.run(**selection)
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri("")


@pytest.mark.parametrize("kind", [CheckedSession, KedroSession])
@pytest.mark.parametrize(
    ("names", "ending"),
    [
        (["nope"], "got 'nope'"),
        (["evalution"], "got 'evalution' (did you mean 'evaluation'?)"),
        (["evaluation", "nope"], "got 'nope'"),
        (["__default__", "nope"], "got 'nope'"),
    ],
)
def test_an_unknown_pipeline_lists_the_pipelines(folder, kind, names, ending):
    with pytest.raises(ConfigurationError, match=re.escape(ending)) as caught:
        run(folder, kind, pipeline_names=names)

    assert str(caught.value).startswith(
        "--pipelines: expected one of [__default__, adaptive_attack, adversarial_generation, calibration, "
        "detector_training, evaluation, face_recognition, feature_extraction, monitoring, reporting, representatives, "
        "scoring, target_training, twin_training], "
    )
    assert not (folder / "data").exists()
    assert not (folder / "mlflow.db").exists()


def test_an_unknown_environment_lists_the_environments(folder):
    with pytest.raises(ConfigurationError, match=r"--env: .*lfw, .*mnist, test.*got 'tset' \(did you mean 'test'\?\)"):
        run(folder, env="tset", pipeline_names=["representatives"])

    assert not (folder / "mlflow.db").exists()


def test_an_environment_is_not_looked_for_where_none_is_named_or_the_configuration_is_an_archive(folder):
    check_environment(None, folder / "conf")
    check_environment("test", folder / "conf")
    check_environment("anything", folder / "conf.tar.gz")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"tags": ["count"]}, "--tags: expected one of [counting, measuring], got 'count' (did you mean 'counting'?)"),
        ({"node_names": ["measur"]}, "--nodes: expected one of [count_images, measure], got 'measur' (did you mean"),
        ({"from_nodes": ["x"]}, "--from-nodes: expected one of [count_images, measure], got 'x'"),
        ({"to_nodes": ["x"]}, "--to-nodes: expected one of [count_images, measure], got 'x'"),
        ({"from_inputs": ["x"]}, "--from-inputs: expected one of [count, images, size], got 'x'"),
        ({"to_outputs": ["sise"]}, "--to-outputs: expected one of [count, images, size], got 'sise' (did you mean 'si"),
        ({"namespaces": ["x"]}, "--namespaces: expected one of [outer, outer.inner], got 'x'"),
        (
            {"tags": ["counting"], "node_names": ["measure"]},
            "--tags=counting, --nodes=measure: expected nodes that meet all conditions, got none",
        ),
    ],
)
def test_an_unknown_name_in_a_selection_lists_the_known_ones(selection, message):
    pipeline = Pipeline(
        [
            node(len, "images", "count", name="count_images", tags="counting"),
            node(abs, "count", "size", name="measure", tags="measuring"),
        ]
    )
    if "namespaces" in selection:
        pipeline = PIPELINE
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        check_selection(pipeline, selection)


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"tags": (), "node_names": [], "load_versions": {"count": "1"}},
        {"tags": ("counting",), "to_outputs": ["count"]},
        {"namespaces": ["outer"], "from_inputs": ["count"]},
    ],
)
def test_a_selection_of_known_names_passes(selection):
    check_selection(PIPELINE, selection)


def test_the_session_of_the_command_checks_the_selection(folder):
    from kedro.framework.project import settings

    bootstrap_project(folder)
    assert settings.SESSION_CLASS is CheckedSession
    with pytest.raises(ConfigurationError, match=r"--nodes: .*got 'score_image' \(did you mean 'score_images'\?\)"):
        run(folder, pipeline_names=["evaluation"], node_names=["score_image"])
