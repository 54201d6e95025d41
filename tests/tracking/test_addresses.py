from __future__ import annotations

import os

import pytest

from adv_detect.tracking import addresses
from adv_detect.tracking.addresses import choose_addresses, database_file, is_server, remember_exported

SERVER = "http://127.0.0.1:5077"


@pytest.fixture(autouse=True)
def _nothing_exported(monkeypatch):
    for name in (addresses.TRACKING, addresses.REGISTRY, addresses.USER, addresses.PASSWORD):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone, then:
        monkeypatch.delenv(name)
    monkeypatch.setattr(addresses, "_exported", {})


@pytest.mark.parametrize(
    ("exported", "configured", "expected"),
    [
        (None, None, "sqlite:///{project}/mlflow.db"),
        (None, SERVER, SERVER),
        (SERVER, None, SERVER),
        (SERVER, "sqlite:////elsewhere/a.db", SERVER),
        (None, "sqlite:///own/a.db", "sqlite:///{project}/own/a.db"),
        ("sqlite:///a.db?timeout=9", None, "sqlite:///{here}/a.db?timeout=9"),
        (None, "runs", "file://{project}/runs"),
        ("databricks", None, "databricks"),
        (None, "postgresql://me:secret@host/runs", "postgresql://me:secret@host/runs"),
    ],
)
def test_an_exported_address_goes_before_the_file_before_the_projects_database(
    tmp_path, monkeypatch, exported, configured, expected
):
    project, here = tmp_path / "project", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    if exported:
        monkeypatch.setenv(addresses.TRACKING, exported)

    chosen = choose_addresses({"mlflow_tracking_uri": configured, "mlflow_registry_uri": None}, project)

    assert chosen["mlflow_tracking_uri"] == expected.format(project=project, here=here)
    assert chosen["mlflow_registry_uri"] is None


def test_the_registry_may_be_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv(addresses.REGISTRY, SERVER)

    chosen = choose_addresses({}, tmp_path)

    assert chosen["mlflow_registry_uri"] == SERVER
    assert chosen["mlflow_tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db"


def test_name_and_password_leave_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv(addresses.TRACKING, "https://me:p%40ss@host:5000/path")

    chosen = choose_addresses({}, tmp_path)

    assert chosen["mlflow_tracking_uri"] == "https://host:5000/path"
    assert (os.environ[addresses.USER], os.environ[addresses.PASSWORD]) == ("me", "p@ss")


def test_what_mlflow_exported_for_one_project_is_no_choice_for_the_next(tmp_path):
    first = choose_addresses({"mlflow_registry_uri": SERVER}, tmp_path / "a")
    remember_exported(first)
    os.environ[addresses.TRACKING] = first["mlflow_tracking_uri"]  # as MLflow does
    os.environ[addresses.REGISTRY] = first["mlflow_registry_uri"]

    second = choose_addresses({}, tmp_path / "b")
    remember_exported(second)

    assert second["mlflow_tracking_uri"] == f"sqlite:///{tmp_path}/b/mlflow.db"
    assert not second.get("mlflow_registry_uri")
    assert addresses.REGISTRY not in os.environ


def test_what_the_user_exported_stays_his_choice_for_every_session(tmp_path, monkeypatch):
    monkeypatch.setenv(addresses.TRACKING, SERVER)
    for name in ("a", "b"):
        chosen = choose_addresses({}, tmp_path / name)
        remember_exported(chosen)
        os.environ[addresses.TRACKING] = chosen["mlflow_tracking_uri"]

        assert chosen["mlflow_tracking_uri"] == SERVER


def test_kinds_of_stores():
    assert database_file("sqlite:////a/b.db").as_posix() == "/a/b.db"
    assert database_file("sqlite:///:memory:") is None
    assert database_file(SERVER) is None
    assert [is_server(one) for one in (SERVER, "databricks", "sqlite:////a", "file:///a")] == [True, True, False, False]
