"""Commands of the console script: what they hand to Kedro, and what they answer to wrong use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from adv_detect.command_line import main as commands
from adv_detect.command_line.main import main
from adv_detect.command_line.running import is_project, nested
from adv_detect.errors import ConfigurationError

PROJECT = '[tool.kedro]\npackage_name = "adv_detect"\nproject_name = "x"\nkedro_init_version = "1.7.0"\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder below a project, as the working directory."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    return tmp_path.resolve()


@pytest.fixture
def asked(monkeypatch):
    """Pipelines that were asked for instead of run, and from where."""
    calls: list[tuple] = []
    monkeypatch.setattr(commands, "run_pipeline", lambda *given: calls.append((*given, str(Path.cwd()))))
    return calls


def call(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def test_score_is_the_pipeline_with_the_options_that_were_given(place, asked):
    given = ("--env=test", "--review=0.1", "--param", "runtime.shard_size=20", "--param=serving.name=a,b=c:d")
    assert call("score", "pictures, new", *given).exit_code == 0
    images = str(place / "deep" / "pictures, new")
    parameters = {
        "scoring": {"images": images, "review": 0.1}, "runtime": {"shard_size": 20}, "serving": {"name": "a,b=c:d"}
    }  # fmt: skip
    assert asked == [("scoring", "test", parameters, str(place))]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("champion", "champion"), ("models:/x@champion", "models:/x@champion"), ("../m", "m"), ("s3://b/m", "s3://b/m")],
)
def test_models_and_pictures_by_address_stay_as_they_are(place, asked, model, expected):
    assert call("score", "s3://bucket/folder", "--model", model).exit_code == 0
    block = asked[0][2]["scoring"]
    assert block == {"images": "s3://bucket/folder", "model": str(place / "m") if expected == "m" else expected}


@pytest.mark.parametrize(
    ("options", "promote"), [([], None), (["--promote"], True), (["--promote", "--promote-anyway"], "anyway")]
)
def test_calibrate(place, asked, options, promote):
    assert call("calibrate", "clean", "--fpr", "0.05", "--fpr", "0.1", *options).exit_code == 0
    block = asked[0][2]["calibration"]
    assert block.pop("promote", None) == promote
    assert block == {"images": str(place / "deep" / "clean"), "fprs": [0.05, 0.1]}
    assert asked[0][:2] == ("calibration", None)


def test_watch(place, asked):
    assert call("watch", "log", "--hours=6").exit_code == 0
    assert asked[0][0] == "monitoring"
    assert asked[0][2] == {"monitoring": {"log": str(place / "deep" / "log"), "hours": 6.0}}


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ([], "models:/adv-detect-test@champion"),
        (["--verification"], "models:/adv-detect-test-verification@champion"),
        (["--model", "models:/x@y"], "models:/x@y"),
    ],
)
def test_serve_hands_the_champion_of_the_environment_to_the_server(tmp_path, monkeypatch, options, address):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADV_DETECT_LOG", "another")  # so that it is restored
    calls = []
    monkeypatch.setattr("adv_detect.serving.__main__.serve_model", lambda model, **given: calls.append((model, given)))
    assert call("init").exit_code == 0

    found = call("serve", "--env=test", "--port=5055", "--log=log", *options)

    assert found.exit_code == 0, found.output
    [(model, given)] = calls
    assert model == address
    assert (given["host"], given["port"]) == ("127.0.0.1", 5055)
    assert os.environ["ADV_DETECT_LOG"] == str(tmp_path / "log")


def test_outside_of_a_project_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["score", "x"], ["calibrate", "x"], ["watch", "x"], ["serve"], ["report"]):
        found = call(*command)
        assert found.exit_code == 2
        assert found.stderr.count("\n") == 1
        assert f"expected a project of adv-detect in {tmp_path}" in found.stderr
        assert found.stderr.endswith("make one with: adv-detect init\n")


def test_errors_that_name_their_cause_are_one_sentence_and_others_keep_their_traceback(place, monkeypatch):
    def fail(error):
        def run(*_):
            raise error

        monkeypatch.setattr(commands, "run_pipeline", run)
        return call("score", "x")

    found = fail(ConfigurationError("scoring.reject: expected a,\n  got b"))
    assert (found.exit_code, found.stderr) == (2, "scoring.reject: expected a, got b\n")
    assert isinstance(fail(KeyError("a fault of ours")).exception, KeyError)
    monkeypatch.setenv("ADV_DETECT_TRACEBACK", "1")
    assert isinstance(fail(ConfigurationError("a")).exception, ConfigurationError)


@pytest.mark.parametrize("text", ["runtime.device", "=x", "a={b"])
def test_a_parameter_without_a_value_is_refused(text):
    with pytest.raises(ConfigurationError, match="--param: expected name=value"):
        nested({}, [text])


def test_a_project_of_something_else_is_none_and_a_damaged_one_is_named(tmp_path):
    file = tmp_path / "pyproject.toml"
    for text, expected in ((PROJECT, True), (PROJECT.replace("adv_detect", "other"), False), ("[project]", False)):
        file.write_text(text)
        assert is_project(tmp_path) is expected
    file.write_text("[tool")
    with pytest.raises(ConfigurationError, match="expected valid TOML"):
        is_project(tmp_path)


@pytest.mark.parametrize("page", ["report", "scoring", "monitoring"])
def test_report_says_where_a_page_lies_and_opens_it(place, monkeypatch, page):
    opened: list[str] = []
    monkeypatch.setattr(commands.click, "launch", opened.append)
    missing = call("report", f"--page={page}")
    command = "kedro run" if page == "report" else f"kedro run --pipeline={page}"
    assert missing.exit_code == 2
    assert f"no {page} at data/08_reporting/{page}.html: run `{command}`" in missing.stderr
    file = place / "data" / "08_reporting" / f"{page}.html"
    file.parent.mkdir(parents=True)
    file.write_text("<p>")
    assert call("report", f"--page={page}", "--open").stdout.splitlines()[1].endswith(file.as_uri())
    assert opened == [file.as_uri()]
