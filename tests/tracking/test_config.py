from __future__ import annotations

import os
import socket
import subprocess
import time
from types import SimpleNamespace

import mlflow
import pytest

from adv_detect.errors import TrackingError
from adv_detect.tracking.config import IMPATIENT, tracking_config

FIRST = """
import sys
from pathlib import Path
from adv_detect.tracking.config import tracking_config
conf = {"tracking": {"experiment": {"name": sys.argv[2]}}}
config = tracking_config(conf, Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
config.connect()
print(config.tracking.experiment._experiment.experiment_id)
"""


@pytest.fixture(scope="module")
def raced(tmp_path_factory, programs):
    """A project in which two processes made the database at the same moment, the processes, what they wrote."""
    folder = tmp_path_factory.mktemp("raced")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    commands = [[str(programs / "python"), "-c", FIRST, str(folder), name] for name in ("one", "two")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(one, env=environment, **pipes) for one in commands]
    for one in both:
        while "ready" not in (line := one.stdout.readline()):
            assert line, "it ended before it began"
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    return folder, both, [one.communicate(timeout=300)[0] for one in both]


def config_at(address: str, project, **experiment: object):
    conf = {"server": {"mlflow_tracking_uri": address}, "tracking": {"experiment": {"name": "one", **experiment}}}
    return tracking_config(conf, project)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_that_is_down_is_said_at_once(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    config = config_at(address.replace("//", "//me:secret@"), tmp_path)
    begin = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        config.connect()

    assert time.monotonic() - begin < 20
    assert f"MLFLOW_TRACKING_URI: expected an MLflow server that answers at {address}, got: " in str(caught.value)
    assert "refused" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not set(IMPATIENT) & set(os.environ)


def test_a_server_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setitem(IMPATIENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TrackingError, match="timed out"):
            config_at(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path).connect()


@pytest.mark.parametrize(
    ("address", "given", "expected"),
    [
        ("sqlite:////a/b.db", None, "file://{project}/mlruns"),
        ("postgresql://host/runs", None, "file://{project}/mlruns"),
        ("http://host:5000", None, None),
        ("file:///a/runs", None, None),
        ("sqlite:////a/b.db", "kept", "file://{project}/kept"),
        ("http://host:5000", "s3://bucket/runs", "s3://bucket/runs"),
    ],
)
def test_artifacts_lie_where_the_store_wants_them(tmp_path, address, given, expected):
    config = config_at(address, tmp_path, create_experiment_kwargs={"artifact_location": given})

    found = config.tracking.experiment.create_experiment_kwargs.artifact_location

    assert found == (None if expected is None else expected.format(project=tmp_path))


def test_setup_only_tells_mlflow_the_addresses(tmp_path):
    config = config_at("sqlite:///own.db", tmp_path)

    config.setup(SimpleNamespace(_get_config_credentials=dict))

    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/own.db"
    assert not list(tmp_path.iterdir())


def test_two_first_runs_at_once_make_one_database(raced):
    folder, both, ends = raced

    assert [one.returncode for one in both] == [0, 0], ends
    found = {one.name for one in mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()}
    assert found == {"Default", "one", "two"}


def test_a_registry_that_is_down_is_said_too(raced):
    config = config_at(f"sqlite:///{raced[0]}/mlflow.db", raced[0])
    config.server.mlflow_registry_uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TrackingError, match="MLFLOW_REGISTRY_URI: expected an MLflow server that answers"):
        config.connect()
