"""Every environment has results, a registered model and an experiment of its own; raw data are everybody's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kedro.framework.project import configure_project, pipelines

from adv_detect.environments import (
    EnvironmentConfigLoader,
    check_environment,
    check_registered_name,
    check_results,
    own_name,
)
from adv_detect.errors import ConfigurationError
from adv_detect.settings import CONFIG_LOADER_ARGS

MINE = "mine"


@pytest.fixture
def conf(project, tmp_path) -> Path:
    """The configuration with an environment more, which says nothing about paths and names."""
    folder = tmp_path / "conf"
    shutil.copytree(project / "conf", folder)
    (folder / MINE).mkdir()
    (folder / MINE / "parameters.yml").write_text("runtime: {seed: 3}")
    return folder


def load(conf: Path, env: str | None) -> EnvironmentConfigLoader:
    loader = EnvironmentConfigLoader(conf, env, **CONFIG_LOADER_ARGS)
    loader.config_patterns["mlflow"] = ["mlflow*"]
    return loader


def written_paths(loader: EnvironmentConfigLoader) -> set[str]:
    """Paths of all that pipelines make, as the catalog says them."""
    configure_project("adv_detect")
    made = {name for pipeline in pipelines.values() for name in pipeline.all_outputs()}
    catalog = loader["catalog"]
    entries = [catalog[name] for name in made if name in catalog] + [catalog[name] for name in catalog if "{" in name]
    return {entry["filepath"] for entry in entries if "filepath" in entry}


@pytest.mark.parametrize(
    ("env", "folder", "name"),
    [
        (None, "data", "adv-detect"),
        ("local", "data", "adv-detect"),
        ("base", "data", "adv-detect"),
        ("mnist", "data/mnist", "adv-detect-mnist"),
        (MINE, f"data/{MINE}", f"adv-detect-{MINE}"),
    ],
)
def test_an_environment_has_its_own_folder_name_and_experiment(conf, env, folder, name):
    loader = load(conf, env)

    paths = written_paths(loader)

    assert len(paths) > 30
    assert {str(Path(path).parents[len(Path(path).parts) - len(Path(folder).parts) - 1]) for path in paths} == {folder}
    assert all(Path(path).relative_to(folder).parts[0][:2] in {f"0{n}" for n in range(2, 9)} for path in paths)
    assert loader["parameters"]["serving"]["name"] == name
    assert loader["mlflow"]["tracking"]["experiment"]["name"] == name


def test_two_environments_in_one_process_do_not_mix(conf):
    first, second = load(conf, MINE), load(conf, "test")

    assert written_paths(first).isdisjoint(written_paths(second))
    assert first["parameters"]["serving"]["name"] == f"adv-detect-{MINE}"


def test_raw_data_are_shared(conf):
    catalog = load(conf, "mnist")["catalog"]

    assert catalog["train_images"]["filepath"] == "data/01_raw"


def test_a_name_that_is_configured_stands(conf):
    (conf / MINE / "parameters.yml").write_text("serving: {name: guard}")

    assert load(conf, MINE)["parameters"]["serving"]["name"] == "guard"
    check_registered_name("guard", MINE, conf)


@pytest.mark.parametrize(
    "env", ["01_raw", "08_reporting", "02_x", "a/b", "../x", ".hidden", "a b", "ä", "x" * 65, "a:b"]
)
def test_a_name_that_is_no_folder_of_results_is_refused(conf, env):
    with pytest.raises(
        ConfigurationError, match=r"--env: expected a name of at most 64 .* results go to data/<env>, got"
    ):
        load(conf, env)


def test_an_environment_that_is_not_there_is_refused_with_those_that_are(conf):
    with pytest.raises(ConfigurationError, match=r"--env: expected one of \[base, cifar10, .*, mine, .*\], got 'nope'"):
        check_environment("nope", conf)


def test_base_is_refused_where_the_user_has_settings_of_his_own(conf):
    check_environment("base", conf)
    (conf / "local" / "mlflow.yml").write_text("server: {mlflow_tracking_uri: 'http://x'}")
    check_environment("base", conf)
    (conf / "local" / "parameters_mine.yml").write_text("runtime: {seed: 1}")

    check_environment("local", conf)
    with pytest.raises(ConfigurationError, match=r"--env=base: expected no settings .*, got parameters_mine.yml"):
        check_environment("base", conf)


@pytest.mark.parametrize(
    ("own", "other", "name", "others"),
    [
        ("serving: {name: guard}", "serving: {name: guard}", "guard", "'mnist'"),
        ("serving: {name: adv-detect}", "", "adv-detect", "'base'"),
        ("serving: {name: adv-detect-mnist}", "", "adv-detect-mnist", "'mnist'"),
        ("serving: {fpr: 0.01, name: '${own_name:adv-detect}'}", "", "adv-detect-mine", None),
    ],
)
def test_two_environments_with_one_registered_name_are_refused(conf, own, other, name, others):
    (conf / MINE / "parameters.yml").write_text(own)
    (conf / "mnist" / "parameters_serving.yml").write_text(other)

    if others is None:
        check_registered_name(name, MINE, conf)
    else:
        with pytest.raises(ConfigurationError, match=rf"got '{name}' for 'mine', which is also that of {others}; "):
            check_registered_name(name, MINE, conf)


def test_a_name_written_into_base_is_that_of_all(conf):
    text = (conf / "base" / "parameters.yml").read_text().replace("${own_name:adv-detect}", "guard")
    (conf / "base" / "parameters.yml").write_text(text)

    with pytest.raises(ConfigurationError, match=r"got 'guard' for 'base', .* write \$\{own_name:guard\} in conf/base"):
        check_registered_name("guard", None, conf)


@pytest.mark.parametrize(
    ("env", "path", "good"),
    [
        (MINE, "data/mine/06_models/x", True),
        (MINE, "/elsewhere/x", True),
        (MINE, "data/06_models/x", False),
        (MINE, "data/test/06_models/x", False),
        (MINE, "data/01_raw/x", False),
        (MINE, "data/mine_too/06_models/x", False),
        (None, "data/06_models/x", True),
        (None, "data/mine/06_models/x", False),
        (None, "data/01_raw/x", False),
    ],
)
def test_nobody_writes_into_the_results_of_others(tmp_path, env, path, good):
    paths = {"scores": path}
    if good:
        check_results(paths, env, tmp_path)
    else:
        with pytest.raises(
            ConfigurationError, match=rf"scores: expected a path in .* got {path}; write \${{results:}}"
        ):
            check_results(paths, env, tmp_path)


def test_own_name_is_never_the_default_one():
    assert own_name(None, "a") == own_name("base", "a") == "a"
    assert own_name("b", "a") == "a-b"


def test_a_file_that_is_no_yaml_is_named_and_hinders_no_other_environment(conf):
    (conf / MINE / "parameters.yml").write_text("serving: {name: a}\nserving: {name: b}\n")

    check_registered_name("guard", "test", conf)
    assert load(conf, "test")["parameters"]["serving"]
    with pytest.raises(ConfigurationError, match=rf"{MINE}/parameters\.yml: expected valid YAML .* duplicate key"):
        load(conf, MINE)["parameters"]
