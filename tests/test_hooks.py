from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.text import TextDataset

from adv_detect import settings
from adv_detect.errors import ConfigurationError
from adv_detect.hooks import ConfigurationHooks, TrackingHooks
from adv_detect.params import NetworkParams, RayParams, RuntimeParams
from adv_detect.tracking.records import MAX_VALUE, describe_run, flatten_parameters, macro_areas, run_name

RUN = {
    "pipeline_names": ["tiny"],
    **dict.fromkeys(("tags", "node_names", "from_nodes", "to_nodes", "from_inputs", "load_versions")),
}
KEYS = ("ours/both/all/0", "theirs/both/all/0")
TABLES = {"summary": "detector_summary", "histories": "detector_histories"}
EPOCHS = 300
RAY = {"address": "None", "num_cpus": "1.0", "num_gpus": "0.0", "max_retries": "3"}


def metric_rows() -> pd.DataFrame:
    rows = []
    for shift, key in enumerate((*KEYS, "margin")):
        for variant in ("float", "8bit"):
            for attack, auc in (("bim", 0.9), ("cw", 0.8), ("macro", 0.85), ("worst", 0.8)):
                row = {"detector": key, "attack": attack, "criterion": "targeted", "form": "early", "variant": variant}
                row |= {"auc": auc - shift / 10, "tpr_at_fpr_01": 0.4, "tpr_at_fpr_03": 0.5, "tpr_at_fpr_05": 0.6}
                rows.append(row | {"tpr_at_fpr_10": 0.7, "eer": float("nan") if attack == "worst" else 0.1})
    return pd.DataFrame(rows)


def summary_rows() -> pd.DataFrame:
    rows = [{"detector": key, "kind": "lstm", "trained_on": "all"} for key in KEYS]
    return pd.DataFrame(rows).assign(validation_macro_auc_all=[0.9, 0.7])


def history_rows() -> pd.DataFrame:
    rows = [(key, epoch, 1 / epoch, 0.5) for key in KEYS for epoch in range(1, EPOCHS + 1)]
    columns = ["detector", "epoch", "train_loss", "learning_rate"]
    return pd.DataFrame(rows, columns=columns).assign(validation_loss=0.1, validation_macro_auc=0.9)


def first(runtime: RuntimeParams, network: NetworkParams) -> tuple:
    return {"target_accuracy": 0.75}, f"{runtime.seed} {network.name}", summary_rows(), history_rows()


def second(runtime: RuntimeParams, summary: pd.DataFrame) -> tuple:
    return metric_rows(), "<html></html>", "not marked"


def fail(runtime: RuntimeParams) -> str:
    raise RuntimeError("a node that fails")


PIPELINE = Pipeline(
    [
        node(
            first,
            ["params:runtime", "params:network"],
            ["target_metrics", "roc_figure", "detector_summary", "detector_histories"],
        ),
        node(second, ["params:runtime", "detector_summary"], ["detection_metrics", "report", "notes"]),
    ]
)


@pytest.fixture
def catalog(tmp_path):
    def text(name, **metadata):
        return TextDataset(filepath=str(tmp_path / name), metadata=metadata or None)

    return DataCatalog(
        {
            "params:runtime": MemoryDataset(RuntimeParams(seed=7)),
            "params:network": MemoryDataset(NetworkParams()),
            "params:unused": MemoryDataset({"a": 1}),
            "target_metrics": JSONDataset(filepath=str(tmp_path / "t.json"), metadata={"mlflow": "metrics"}),
            "roc_figure": text("roc.png", mlflow="figure"),
            "report": text("report.html", mlflow="artifact"),
            "notes": text("notes.txt"),
            **{name: MemoryDataset() for name in ("detector_summary", "detector_histories")},
            "detection_metrics": MemoryDataset(metadata={"mlflow": {"detectors": TABLES}}),
        }
    )


class Project:
    """A project of one catalog, run with hooks as Kedro runs them."""

    def __init__(self, folder: Path, uri: str, name: str, *, untracked: str = "") -> None:
        self.uri, self.name = uri, name
        self.hooks = TrackingHooks()
        (folder / "conf").mkdir()
        (folder / "conf" / "mlflow.yml").write_text(
            f"server: {{mlflow_tracking_uri: '{uri}'}}\n"
            f"tracking: {{experiment: {{name: {name}, create_experiment_kwargs: {{artifact_location: '{folder}'}}}}, "
            f"disable_tracking: {{pipelines: [{untracked}]}}}}"
        )
        loader = OmegaConfigLoader(conf_source=str(folder / "conf"), base_env="", default_run_env="")
        manager = _create_hook_manager()
        self.context = KedroContext(folder, loader, env=None, package_name="tiny", hook_manager=manager)

    def run(self, pipeline: Pipeline, catalog: DataCatalog, *others: object) -> None:
        manager = _create_hook_manager()
        for one in (*others, self.hooks):
            manager.register(one)
        manager.hook.after_context_created(context=self.context)
        given = {"run_params": dict(RUN), "pipeline": pipeline, "catalog": catalog}
        manager.hook.before_pipeline_run(**given)
        try:
            SequentialRunner().run(pipeline, catalog, hook_manager=manager)
        except Exception as exc:
            manager.hook.on_pipeline_error(error=exc, **given)
            raise
        manager.hook.after_pipeline_run(**given, run_result={})

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.uri)

    @property
    def runs(self) -> list:
        """Runs of the project, the outermost first."""
        experiment = self.client.get_experiment_by_name(self.name)
        found = self.client.search_runs([experiment.experiment_id]) if experiment is not None else []
        return sorted(found, key=lambda run: "mlflow.parentRunId" in run.data.tags)


@pytest.fixture
def project(tmp_path, tracking, request):
    return Project(tmp_path, tracking, request.node.name)


def test_a_run_is_logged(project, catalog):
    project.run(PIPELINE, catalog)
    run, *nested = project.runs
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "base: ours/both/all/0, macro-AUC early 0.850"
    _check_parameters(run)
    _check_metrics(run)
    listed = {name for folder in ("", "figures") for name in _artifacts(project, run, folder)}
    assert {"report.html", "figures/roc.png"} <= listed
    assert not [name for name in listed if "notes" in name]
    assert run.data.tags["champion"] == KEYS[0]
    assert "| targeted, early | 0.850 | 0.800 | 0.650 | 0.400 | 0.600 |" in run.data.tags["mlflow.note.content"]
    assert {one.info.run_name for one in nested} == set(KEYS)
    for one in nested:
        _check_nested(project, run, one)


def _check_parameters(run):
    assert run.data.params["runtime.seed"] == "7"
    assert run.data.params["network.preprocessing.scale"] == "1.0"
    assert run.data.params["runtime.ray.num_cpus"] == "1.0"
    assert not {"runtime", "network", "unused.a"} & set(run.data.params)


def _check_metrics(run):
    found = run.data.metrics
    assert found["target_accuracy"] == 0.75
    assert found["champion/targeted/early/macro/auc"] == 0.85
    assert found["champion/targeted/early/worst/auc"] == 0.8
    assert found["champion/targeted/early/macro/tpr_at_fpr_01"] == 0.4
    assert found["margin/targeted/early/macro/auc"] == pytest.approx(0.65)
    assert (found["macro_auc/early"], found["margin_auc/early"]) == (0.85, pytest.approx(0.65))
    assert not [name for name in found if "nan" in name or "8bit" in name or "/bim/" in name]


def _check_nested(project, run, nested):
    assert nested.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert nested.info.status == "FINISHED"
    assert nested.data.params["kind"] == "lstm"
    assert nested.data.params["validation_macro_auc_all"] == ("0.9" if nested.info.run_name == KEYS[0] else "0.7")
    expected = 0.8 if nested.info.run_name == KEYS[0] else 0.7
    assert nested.data.metrics["targeted/early/cw/auc"] == pytest.approx(expected)
    assert "targeted/early/worst/eer" not in nested.data.metrics
    curve = project.client.get_metric_history(nested.info.run_id, "training/train_loss")
    assert sorted((point.step, point.value) for point in curve) == [(n, 1 / n) for n in range(1, EPOCHS + 1)]
    assert len(project.client.get_metric_history(nested.info.run_id, "training/validation_macro_auc")) == EPOCHS


def _artifacts(project, run, folder):
    return [one.path for one in project.client.list_artifacts(run.info.run_id, folder or None)]


def test_a_part_of_a_pipeline_without_the_training_curves_logs_what_it_has(project, catalog, caplog):
    part = Pipeline([node(metric_rows, None, "detection_metrics")])

    project.run(part, catalog)

    (run,) = project.runs
    assert run.info.status == "FINISHED"
    assert "this run made no detector_summary and no detector_histories" in caplog.text


def test_a_node_that_fails_fails_the_run(project, catalog):
    with pytest.raises(RuntimeError, match="a node that fails"):
        project.run(Pipeline([node(fail, "params:runtime", "never")]), catalog)
    (run,) = project.runs
    assert run.info.status == "FAILED"
    assert run.data.params["runtime.seed"] == "7"
    assert mlflow.active_run() is None


def test_a_wrong_configuration_opens_no_run(project, catalog):
    catalog["params:runtime"] = MemoryDataset(RuntimeParams(device="banana"))
    with pytest.raises(ConfigurationError, match=r"runtime.device: expected auto, cpu"):
        project.run(Pipeline([node(fail, "params:runtime", "never")]), catalog, ConfigurationHooks())
    assert project.runs == []


def test_an_interrupted_run_is_not_called_finished(project, catalog):
    project.hooks.after_context_created(project.context)
    project.hooks.before_pipeline_run(RUN, PIPELINE, catalog)
    project.hooks._close_interrupted()
    assert [run.info.status for run in project.runs] == ["KILLED"]


def test_a_run_of_someone_else_is_left_alone(tracking):
    with mlflow.start_run(experiment_id="1") as run:
        TrackingHooks()._close_interrupted()
        assert mlflow.active_run().info.run_id == run.info.run_id


def test_tracking_can_be_turned_off(tmp_path, tracking, catalog):
    project = Project(tmp_path, tracking, "untracked", untracked="tiny")
    project.run(PIPELINE, catalog)
    assert project.runs == []
    assert catalog.load("report") == "<html></html>"


def test_many_and_long_parameters(project, catalog):
    catalog["params:many"] = MemoryDataset({f"p{n}": n for n in range(250)} | {"long": "x" * (MAX_VALUE + 1), "a+b": 1})
    project.run(Pipeline([node(lambda many: str(len(many)), "params:many", "notes")]), catalog)
    (run,) = project.runs
    assert len(run.data.params) == 252
    assert run.data.params["many.p249"] == "249"
    assert run.data.params["many.long"] == "x" * MAX_VALUE
    assert run.data.params["many.a_b"] == "1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, {"name": "3"}),
        ({}, {"name": "{}"}),
        ({"a": {"b": [1, 2]}, "c": None}, {"name.a.b": "[1, 2]", "name.c": "None"}),
        (RayParams(), {f"name.{key}": value for key, value in RAY.items()}),
        ({"one": RayParams()}, {f"name.one.{key}": value for key, value in RAY.items()}),
    ],
)
def test_flatten_parameters(value, expected):
    assert flatten_parameters(value, "name") == expected


def test_a_run_without_a_champion_is_named_by_environment_and_pipelines(project):
    project.run(Pipeline([]), DataCatalog(), Named("mnist", ["scoring", "monitoring"]))

    assert project.runs[0].info.run_name == "mnist: scoring+monitoring"


class Named:
    """Another environment and other pipelines."""

    def __init__(self, env: str, names: list[str]) -> None:
        self.given = {"env": env, "pipeline_names": names}

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict) -> None:
        run_params.update(self.given)


def test_macro_areas_are_means_of_both_criteria():
    rows = metric_rows()
    both = pd.concat([rows, rows.assign(criterion="untargeted", auc=rows["auc"] - 0.1)])
    none = both.assign(form="confident", auc=float("nan"))

    assert macro_areas(pd.concat([both, none]), KEYS[0]) == {"early": pytest.approx(0.8)}
    assert (
        run_name("lfw", "ours", {"early": 0.8, "confident": 0.75})
        == "lfw: ours, macro-AUC early 0.800, confident 0.750"
    )
    assert run_name("lfw", "ours", {}) == "lfw: ours"


def test_the_description_does_without_a_control():
    rows = metric_rows()
    text = describe_run(rows[rows["detector"] != "margin"], KEYS[1])
    assert "| targeted, early | 0.750 | 0.700 |  | 0.400 | 0.600 |" in text


def test_the_store_is_not_asked_before_a_run_begins(tmp_path, catalog):
    project = Project(tmp_path, f"sqlite:///{tmp_path / 'fresh.db'}", "later")
    project.hooks.after_context_created(project.context)
    assert not (tmp_path / "fresh.db").exists()
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path / 'fresh.db'}"
    assert project.context.mlflow.tracking.experiment.name == "later"


def test_the_hooks_of_the_plugin_are_replaced():
    assert distribution("kedro-mlflow").metadata["Name"] in settings.DISABLE_HOOKS_FOR_PLUGINS
    assert isinstance(settings.HOOKS[-1], TrackingHooks)


def test_outputs_that_the_catalog_announces_are_logged_with_their_place_and_no_others(caplog):
    hooks = ConfigurationHooks()
    announced = {"filepath": "there/report.html", "metadata": {"announced": True}}
    other = {"filepath": "there/notes.txt", "metadata": {"mlflow": "artifact"}}
    hooks.after_catalog_created(conf_catalog={"report": announced, "notes": other, "unmade": announced})
    made = Pipeline([node(lambda: (1, 2), None, ["report", "notes"], name="make")])

    with caplog.at_level("INFO", logger="adv_detect.hooks"):
        hooks.after_pipeline_run(made)

    assert [record.getMessage() for record in caplog.records] == ["report: there/report.html"]
