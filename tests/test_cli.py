"""``kedro run``: parameters of the command line over those of a run file."""

from __future__ import annotations

import pytest

from adv_detect.cli import cli

FILE = """
run:
  env: test
  params:
    runtime: {seed: 3, shard_size: 8}
    adversarial_generation: {attacks: {cw: null}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yml"
    path.write_text(FILE)
    return f"--config={path}"


def parse(*arguments: str):
    return cli.commands["run"].make_context("run", list(arguments)).params


@pytest.mark.parametrize("file_first", [True, False])
def test_single_values_of_a_run_file_are_changed_and_the_others_stay(file, file_first):
    options = [file, "--params=runtime.seed=5,runtime.device=cpu"]
    found = parse(*(options if file_first else reversed(options)))
    assert found["params"] == {
        "runtime": {"seed": 5, "shard_size": 8, "device": "cpu"},
        "adversarial_generation": {"attacks": {"cw": None}},
    }
    assert found["env"] == "test"


def test_each_alone_is_what_it_was(file):
    assert parse(file)["params"]["runtime"] == {"seed": 3, "shard_size": 8}
    assert parse("--params=runtime.seed=5")["params"] == {"runtime": {"seed": 5}}
    assert parse()["params"] == {}


def test_other_options_of_the_command_line_count_over_the_file(file):
    assert parse(file, "--env=mnist")["env"] == "mnist"
