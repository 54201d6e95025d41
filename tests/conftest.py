"""What many tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.forking import stand_ins
from tests.projects import DEADLINE_SECONDS, command, new_project
from tests.sharing import LONGEST, made_once

from adv_detect.memory import keep_freed_memory

pytest_plugins = ["tests.workshop"]

PROJECT = Path(__file__).resolve().parents[1]
PROGRAMS = pytest.StashKey[Path]()

keep_freed_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else stays in its order."""
    ranks = {PROJECT / "tests" / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def project() -> Path:
    """Root of the project."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the project; its name may be given by ADV_DETECT_SHARED_DATA."""
    folder = Path(os.environ.get("ADV_DETECT_SHARED_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _facts_of_images_are_kept_apart(tmp_path_factory: pytest.TempPathFactory):
    """Nothing is written to the user's cache folder."""
    os.environ["ADV_DETECT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def pytest_configure(config: pytest.Config) -> None:
    """Let the process that hands out tests have one process that forks for the commands of them all."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        stack = ExitStack()
        config.stash[PROGRAMS] = stack.enter_context(stand_ins())
        config.add_cleanup(stack.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of tests where its programs are."""
    node.workerinput["programs"] = str(node.config.stash[PROGRAMS])


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Folder with ``kedro`` and ``python``, of which a command begins with the imports done."""
    shared = getattr(request.config, "workerinput", {}).get("programs")
    with nullcontext(Path(shared)) if shared else stand_ins() as folder:
        yield folder


@pytest.fixture(scope="session")
def forked_kedro(programs: Path) -> tuple[str, ...]:
    """Program for :func:`~tests.projects.command`: ``kedro`` with the imports done."""
    return (str(programs / "kedro"),)


@pytest.fixture(scope="session")
def finished_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which ``kedro run --env=test`` has succeeded, from nothing; tests leave its results as they are."""

    def make(folder: Path) -> None:
        process = command(new_project(folder, project))
        output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0, output[-3000:]

    return made_once(tmp_path_factory, "finished_run", make)


@pytest.fixture(autouse=True)
def _no_run_stays_open():
    """A test must hand neither its MLflow run nor its tracking store to the next one; MLflow exports the latter."""
    yield
    mlflow = sys.modules.get("mlflow")
    while mlflow is not None and mlflow.active_run() is not None:
        mlflow.end_run()
    if mlflow is not None:
        mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def _global_random_state_is_untouched(request: pytest.FixtureRequest):
    """Code under test must draw from its own generators; a test that seeds on purpose restores the state."""
    if "leaves_rng_alone" not in request.keywords:
        yield
        return
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture(scope="session")
def bundle():
    """A network and a detector with random weights, ready to be served."""
    from tests.served import tiny_bundle

    return tiny_bundle()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a tracking database; made once, since that takes seconds."""
    from tests.served import tracking_database

    return tracking_database(tmp_path_factory.mktemp("tracking"))


@pytest.fixture
def tracking(database: str):
    """The database as the one that MLflow logs to during a test."""
    from tests.served import logging_to

    with logging_to(database) as address:
        yield address
