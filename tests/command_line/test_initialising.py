"""New projects, and environments proposed for pictures and a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from fsspec.implementations.local import LocalFileSystem
from kedro.io import DataCatalog
from PIL import Image
from tests.doc_blocks import parameters
from tests.projects import session

from adv_detect.command_line.main import main
from adv_detect.command_line.picture_survey import PictureSurvey
from adv_detect.command_line.project_files import project_files, write_new
from adv_detect.command_line.proposal import divide
from adv_detect.networks import build_network
from adv_detect.params import BLOCKS, AdversarialGenerationParams
from adv_detect.sharding import files
from adv_detect.validation.blocks import check_parameters


def init(*arguments: str):
    return CliRunner().invoke(main, ["init", *arguments])


def pictures(folder, *, classes=3, count=20, mode="RGB", size=(40, 36), natural=True, parts=("",)):
    """Class folders of noise (photographs) or of white strokes on black."""
    generator = np.random.default_rng(0)
    for part in parts:
        for label in range(classes):
            place = folder / part / f"class {label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
                if not natural:
                    pixels[:] = 0
                    pixels[4:-4, number % 8 + 4 : number % 8 + 9] = (
                        255  # a stroke, and points that make it unlike all others
                    )
                    pixels[1, [4 + 2 * bit for bit in range(10) if (label * count + number) >> bit & 1]] = 255
                Image.fromarray(pixels).convert(mode).save(place / f"{number}.png")
    return folder


def environment(folder, name="mine"):
    """Catalog and parameters of a proposed environment, and the parameters together with the base."""
    catalog, own = (
        yaml.safe_load((folder / f"conf/{name}/{kind}.yml").read_text()) for kind in ("catalog", "parameters")
    )
    return catalog, own, parameters(folder / "conf", name)


def test_a_project_in_an_empty_folder_has_the_configuration_and_nothing_is_overwritten(tmp_path):
    folder = tmp_path / "new"
    (folder / "conf" / "base").mkdir(parents=True)
    (folder / "conf" / "base" / "parameters.yml").write_text("# mine\n")
    found = init(str(folder))
    assert found.exit_code == 0, found.stderr
    assert (folder / "conf/base/parameters.yml").read_text() == "# mine\n"
    assert "kept as they were: 1 files" in found.stdout
    assert f"  cd {folder}\n  kedro run\n" in found.stdout
    assert {"catalog.yml", "mlflow.yml"} <= {one.name for one in (folder / "conf/base").iterdir()}
    assert [one.name for one in (folder / "conf/local").iterdir()] == [".gitkeep"]
    assert "written" not in init(str(folder)).stdout


def test_a_project_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    found = init(str(tmp_path))
    assert found.exit_code == 2
    assert "got the pyproject.toml of something else; take another folder" in found.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_photographs_and_a_network_without_published_layers(tmp_path):
    images = pictures(tmp_path / "photos", count=40)
    (images / "class 0" / "broken.png").write_bytes(b"none")
    arguments = ("--images", str(images), "--network", "torchvision.models.squeezenet1_1")
    found = init(str(tmp_path / "project"), *arguments)
    assert found.exit_code == 0, found.stderr
    assert "written: conf/mine/catalog.yml\nwritten: conf/mine/parameters.yml\n" in found.stdout
    catalog, own, together = environment(tmp_path / "project")
    text = (tmp_path / "project/conf/mine/parameters.yml").read_text()
    check_parameters(together)
    train = DataCatalog.from_config({"train_images": catalog["train_images"]}).load("train_images")
    assert train[0][0].shape == (3, 36, 40)
    assert (catalog["test_images"]["part"], catalog["test_images"]["test_fraction"]) == ("test", 0.4)
    assert catalog["train_images"]["on_error"] == "skip"
    assert 3 <= len(own["network"]["layers"]) <= 6
    assert own["network"]["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    active = AdversarialGenerationParams.model_validate(together["adversarial_generation"]).active
    assert {one.epsilon for one in active.values() if one.norm == "linf"} == {8 / 255}
    # 48 of 121 pictures are attacked: a validation share of .4 is the most, 19 of them
    assert own["splits"] == {"train": 0.3, "validation": 0.4, "test": 0.3, "max_images": None}
    assert "19 clean images for thresholds; a rate below 1 in 19 promises nothing" in text
    assert not set(own) - set(BLOCKS)


def test_digits_in_train_and_test_folders_and_a_network_with_another_pixel_range(tmp_path):
    images = pictures(tmp_path / "data", mode="L", size=(28, 28), natural=False, parts=("train", "test"))
    found = init(str(tmp_path), "--images", str(images), "--network", "small", "--bounds", "-1", "1", "--name", "own")
    assert found.exit_code == 0, found.stderr
    catalog, own, together = environment(tmp_path, "own")
    check_parameters(together)
    assert catalog["train_images"]["filepath"] == "data"
    assert [catalog[f"{part}_images"]["folder"] for part in ("train", "test")] == ["train", "test"]
    assert catalog["test_images"]["colour"] == "grayscale"
    assert own["network"]["layers"] is None
    assert own["adversarial_generation"]["attacks"]["bim"] == {"epsilon": 0.6}  # .3 of a range of 2
    assert own["detector_training"]["configurations"]["dknn"] is None


def test_a_checkpoint_alone_is_recognised_and_its_head_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = pictures(tmp_path / "pictures", mode="L", size=(30, 34))
    for classes, expected in ((3, "holds a head for these classes"), (7, "holds no head for these classes")):
        files.write_tensors(
            LocalFileSystem(),
            f"{tmp_path}/{classes}.safetensors",
            build_network("small", num_classes=classes).state_dict(),
            {},
        )
        found = init("--images", str(images), "--checkpoint", f"{classes}.safetensors", "--name", f"of{classes}")
        assert found.exit_code == 0, found.stderr
        catalog, own, _ = environment(tmp_path, f"of{classes}")
        assert (own["network"]["name"], own["network"]["checkpoint"]) == ("small", f"{classes}.safetensors")
        assert own["target_training"].get("head_only", False) is (classes == 7)
        assert expected in (tmp_path / f"conf/of{classes}/parameters.yml").read_text()
        # small takes 28 x 28 alone, the pictures are larger
        assert catalog["train_images"]["centre_crop"] == [28, 28]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--network", "small"],
            "--images: expected a folder of class folders of pictures beside the network, got none",
        ),
        (["--images", "p"], "--network: expected a registered name, a dotted path, or --checkpoint"),
        (["--images", "p", "--network", "smal"], "expected one of"),
        (["--images", "p", "--network", "small", "--name", "base"], "the name of a new environment, got 'base'"),
        (["--images", "p", "--network", "small", "--name", "lfw"], "conf/lfw is there already; choose another one"),
        (["--images", "p", "--network", "small", "--name", "a/b"], "expected a name of at most 64 letters"),
        (["--images", "p", "--network", "small", "--layer", "nope"], "no module 'nope'; expected of"),
        (["--images", "nowhere", "--network", "small"], "there is no image folder"),
        (["--images", "empty", "--network", "small"], "at least 2 of them, .* got 0 in"),
        (
            ["--images", "p", "--checkpoint", "none.pth"],
            "expected a file of weights, got .*none.pth, and there is none",
        ),
        (["--images", "p", "--checkpoint", "noise"], "fits none; name its constructor with --network"),
    ],
)
def test_what_cannot_be_proposed_for_is_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "p", count=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise").write_bytes(b"no weights")
    found = init("project", *options)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert re.search(message, found.stderr)
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(
    ("count", "attacked", "validation", "rest_on"),
    [(100, 40, 0.4, 16), (1000, 400, 0.25, 100), (2000, 800, 0.2, 160), (100_000, 900, 0.2, 180)],
)
def test_the_division_of_attacked_images(count, attacked, validation, rest_on):
    """Four tenths of the pictures are attacked, 900 at most; 100 validation images where the share allows it."""
    sizes, modes = Counter({(28, 28): count}), Counter({"L": count})
    found = divide(PictureSurvey("", ("", ""), {"a": count // 2, "b": count // 2}, 1, sizes, modes, [], natural=False))
    assert (found.attacked, found.validation, found.thresholds_rest_on) == (attacked, validation, rest_on)


def test_files_are_written_once(tmp_path):
    assert write_new(tmp_path, {"a/b": "1"}) == (["a/b"], [])
    assert write_new(tmp_path, {"a/b": "2", "c": "3"}) == (["c"], ["a/b"])
    assert (tmp_path / "a/b").read_text() == "1"


@pytest.mark.slow
def test_an_installed_wheel_makes_a_working_project_in_an_empty_folder(project, tmp_path):
    """Of the wheel alone: neither the checkout nor its configuration is on the way."""
    source, installed, folder = (tmp_path / name for name in ("source", "installed", "folder"))
    source.mkdir()
    for name in ("src", "conf", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        (source / name).symlink_to(project / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    # setuptools writes its notes beside src, which is why that is a copy
    (source / "src").unlink()
    shutil.copytree(project / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    [entry] = installed.glob("*.dist-info/entry_points.txt")
    assert "adv-detect = adv_detect.command_line.main:main" in entry.read_text()
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        found = subprocess.run(
            [sys.executable, "-P", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    run("-m", "adv_detect.command_line.main", "init")
    written = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    assert written == set(project_files())
    assert not (folder / "conf/local/local.yml").exists()
    ran = run(
        "-m",
        "kedro",
        "run",
        "--env=test",
        "--pipeline=target_training",
        "--params=target_training.epochs=1,target_training.min_accuracy=0.1",
    )
    assert "Pipeline execution completed successfully" in ran
    assert (folder / "data/test/06_models/network.safetensors").is_file()


@pytest.mark.slow
def test_a_proposed_environment_passes_the_checks_before_a_run(tmp_path):
    """All of `kedro run` but the work: names, values, data, network."""
    images = pictures(tmp_path / "images", count=60, mode="L", size=(28, 28), natural=False)
    assert init(str(tmp_path), "--images", str(images), "--network", "small").exit_code == 0
    with session(tmp_path, environment="mine", target_training={"epochs": 1, "min_accuracy": 0.0}) as one:
        one.run(pipeline_names=["target_training"])
    assert (tmp_path / "data/mine/06_models/network.safetensors").is_file()
