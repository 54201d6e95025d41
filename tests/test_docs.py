"""Every code block of README.md and docs/ is run, or says why it is not; every `kedro run` names what exists."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from PIL import Image
from tests.doc_blocks import (
    Block,
    check_parameters,
    fault,
    kedro_commands,
    merge,
    parameter_types,
    parameters,
    put_into,
    read_blocks,
)
from tests.projects import new_project

from adv_detect.choices import check_pipelines
from adv_detect.environments import check_environment

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
RUN = [block for block in BLOCKS if block.reason is None and block.language != "text"]
UNTYPED = ("faces",)
"""Parameters that entries of the catalog read."""
SMALLER = """
adversarial_generation: {attacks: {deepfool: null, ddn: null, fmn: null, ead: null}}
detector_training:
  configurations: {multiview: null, density: null}
  fit: {epochs: 2}
evaluation:
  bootstrap: 20
  show_examples: 2
  benign_changes: {gamma-0.8: null, gamma-1.25: null, resize-0.5: null}
"""
"""Changes of the base environment that make the commands of an environment of the reader's own shorter."""
CREATED = ("mine",)
"""Environments that a recipe makes."""
ON_A_FINISHED_RUN = ("README.md", "tutorial.md")
"""Pages whose commands go on from the main job."""
THEIR_PICTURES = ("a.png", "b.png")
"""Pictures that a reader of such a page has."""
DEADLINE_SECONDS = 300


@functools.cache
def project_parameters(env: str) -> dict:
    return parameters(PROJECT / "conf", env)


@pytest.fixture(scope="module")
def types() -> dict:
    bootstrap_project(PROJECT)
    return parameter_types()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_is_run_or_says_why_not(block):
    assert fault(block) is None


def test_marks_and_blocks_are_found():
    assert {block.page for block in BLOCKS} >= {"README.md", "recipes.md", "faces.md", "scale.md"}
    assert {block.language for block in RUN} == {"bash", "python", "yaml"}
    fences = sum(line.lstrip().startswith("```") for page in PAGES for line in page.read_text().splitlines())
    assert fences == 2 * len(BLOCKS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nkedro run\n```\n", "expected a language"),
        ("```console\nkedro run\n```\n", "expected a language"),
        ("```text\npip install x\n```\n", "run by no test"),
        ("<!-- not run: slow -->\n```bash\nkedro run\n```\n", "expected a reason"),
    ],
)
def test_a_block_that_no_test_would_run_is_found(tmp_path, text, message):
    page = tmp_path / "page.md"
    page.write_text(text)

    [block] = read_blocks(page)

    assert message in fault(block)


def test_a_mark_holds_for_the_block_below_it_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it takes hours -->\n```bash\na\n```\n\n```yaml\n# in conf/b.yml\nc: 1\n```\n")

    first, second = read_blocks(page)

    assert (first.reason, first.text, first.file) == ("it takes hours", "a\n", None)
    assert (second.reason, second.line, second.file, second.merged) == (None, 6, "conf/b.yml", True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_names_what_exists(page, types):
    for options in kedro_commands(page.read_text(encoding="utf-8")):
        given = dict(option.removeprefix("--").split("=", 1) for option in options if "=" in option)
        env = given.get("env", "base")
        if env in (*CREATED, "..."):
            env = "base"
        check_environment(env, PROJECT / "conf")
        check_pipelines(name for key in ("pipeline", "pipelines") for name in given.get(key, "").split(",") if name)
        changed: dict = {}
        if "config" in given:
            settings = yaml.safe_load((PROJECT / given["config"]).read_text(encoding="utf-8"))["run"]
            env, changed = settings.get("env", "base"), settings.get("params", {})
        for one in filter(None, given.get("params", "").split(",")):
            path, value = one.split("=")
            entry = yaml.safe_load(value)
            for key in reversed(path.split(".")):
                entry = {key: entry}
            changed = merge(changed, entry)
        check_parameters(merge(project_parameters(env), changed), types, untyped=UNTYPED)


@pytest.mark.parametrize(
    "command", ["kedro run --env=nope", "kedro run --pipeline=nope", "kedro run --params=rutime.seed=1"]
)
def test_a_command_that_names_nothing_is_found(tmp_path, types, command):
    page = tmp_path / "page.md"
    page.write_text(f"Type `{command}` and see.")

    with pytest.raises((ValueError, AssertionError), match=r"expected one of|no node reads"):
        test_every_command_of_a_page_names_what_exists(page, types)


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}), ids=lambda page: page.removesuffix(".md"))
def test_the_blocks_of_a_page_run_in_order(page, types, tmp_path, request, programs):
    """In a project of its own; ``KEDRO_ENV`` makes commands small that name no environment."""
    if page in ON_A_FINISHED_RUN:
        folder = tmp_path / "project"
        shutil.copytree(request.getfixturevalue("finished_run"), folder)
        stand_in_for_the_default_environment(folder)
    else:
        folder = new_project(tmp_path, PROJECT)
        for name, values in yaml.safe_load(SMALLER).items():
            put_into(folder / f"conf/base/parameters_{name}.yml", yaml.safe_dump({name: values}))
    for block in RUN:
        if block.page == page:
            follow(block, folder, types, programs)


def stand_in_for_the_default_environment(folder: Path) -> None:
    """Let paths of the default environment lead to the results of the tiny one."""
    for layer in (folder / "data/test").iterdir():
        if layer.is_dir():
            (folder / "data" / layer.name).symlink_to(layer, target_is_directory=True)
    for name in THEIR_PICTURES:
        Image.new("L", (28, 28)).save(folder / name)


def follow(block: Block, folder: Path, types: dict, programs: Path) -> None:
    """Do what a reader does with a block."""
    if block.language == "yaml":
        follow_yaml(block, folder, types)
    elif block.file:
        (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.file).write_text(block.text, encoding="utf-8")
        compile(block.text, block.file, "exec")
    else:
        command = ["python", "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        run(block, [*command, block.text], folder, programs)


def follow_yaml(block: Block, folder: Path, types: dict) -> None:
    """Write the file and build what it describes; lines of no file are read as a change of the base environment."""
    values = yaml.safe_load(block.text)
    env = "base"
    if block.file:
        path = folder / block.file
        env = path.parent.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if block.merged:
            put_into(path, block.text)
        else:
            path.write_text(block.text, encoding="utf-8")
    if block.file and path.name.startswith("catalog"):
        catalog = DataCatalog.from_config({name: dict(entry) for name, entry in values.items()})
        assert all(catalog.get(name) is not None for name in values)
    else:
        check_parameters(merge(parameters(folder / "conf", env), values), types, untyped=UNTYPED)


def run(block: Block, command: list[str], folder: Path, programs: Path) -> None:
    path = (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
    variables = {
        "PATH": os.pathsep.join(path),
        "KEDRO_ENV": "test",
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
    }
    done = subprocess.run(
        [shutil.which(command[0], path=variables["PATH"]) or command[0], *command[1:]],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, f"{block.name}\n{block.text}\n{done.stdout[-3000:]}"
