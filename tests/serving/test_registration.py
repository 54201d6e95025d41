from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pytest

from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.serving.bundle import score_images
from adv_detect.serving.registration import example_images, model_signature, register_bundle, serving_dependencies

FRESH = """
import sys, json
sys.path[:] = [path for path in sys.path if not path.endswith("/src")]
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in str(one).lower()]
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kedro", "kedro_datasets", "kedro_mlflow", "foolbox", "torchvision", "timm", "ray"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import importlib.util
assert importlib.util.find_spec("adv_detect") is None, "the project is still importable"
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/adv-detect@champion")
images = numpy.load(sys.argv[1])
found = [model.predict(images).to_dict("list"), model.predict(images, params={"fpr": 0.01}).to_dict("list")]
try:
    model.predict(images, params={"fpr": 1.5})
except mlflow.exceptions.MlflowException as exc:
    found.append(str(exc))
loaded = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "adv_detect"}
print(json.dumps([found, loaded]))
"""


def test_the_registered_model_reads_back(registered):
    client = mlflow.MlflowClient(registered.uri)
    model = client.get_registered_model("adv-detect")
    made = client.get_model_version_by_alias("adv-detect", "champion")
    for text in ("(N, 1, 28, 28)", "[0, 1]", '{"inputs": [[[[', '"params": {"fpr": 0.05}', "200 clean images"):
        assert text in model.description
    assert made.run_id == registered.run_id
    assert made.status == "READY"
    assert "tiny/both/all/0" in made.description
    assert made.tags["detector"] == "tiny/both/all/0"
    assert made.tags["input_shape"] == "(N, 1, 28, 28) float32"
    assert made.tags["pixel_range"] == "[0, 1]"
    assert made.tags["attacks"] == "bim, cw"
    assert "validation_macro_auc" not in made.tags


def test_files_of_the_model(registered):
    client = mlflow.MlflowClient(registered.uri)
    made = client.get_model_version_by_alias("adv-detect", "champion")
    folder = Path(client.get_model_version_download_uri("adv-detect", made.version).removeprefix("file://"))
    names = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert "artifacts/champion/network.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    tops = {name.split("/")[2] for name in names if name.startswith("code/adv_detect/")}
    files = {"__init__.py", "dotted.py", "errors.py", "fields.py", "images.py", "keys.py", "names.py", "progress.py"}
    files |= {"text_files.py"}
    assert tops == files | {"algorithms", "networks", "params", "pictures", "serving", "sharding"}
    payload = json.loads((folder / "serving_input_example.json").read_text())
    assert np.shape(payload["inputs"]) == (2, 1, 28, 28)
    assert payload["params"] == {"fpr": 0.05}


def test_a_second_registration_moves_the_alias_and_says_nothing_else(registered, tracking, capfd, recwarn):
    client = mlflow.MlflowClient(tracking)
    before = int(client.get_model_version_by_alias("adv-detect", "champion").version)
    with mlflow.start_run(experiment_id="1"):
        number = register_bundle(registered.bundle, registered.folder, alias="champion")
    assert int(number) == before + 1
    assert str(client.get_model_version_by_alias("adv-detect", "champion").version) == number
    printed = "".join(capfd.readouterr()).splitlines()
    assert [line for line in printed if "registered adv-detect version" not in line] == []
    assert not [one for one in recwarn if "mlflow" in str(one.filename)]


def test_a_version_that_is_not_promoted_leaves_the_alias(registered, tracking, tmp_path):
    client = mlflow.MlflowClient(tracking)
    before = client.get_model_version_by_alias("adv-detect", "champion").version
    facts = {"promote": False, "calibration": {"n": 200, "check": "as expected", "images": "clean"}}
    bundle = replace(registered.bundle, metadata=dict(registered.bundle.metadata) | facts)
    with mlflow.start_run(experiment_id="1"):
        ChampionModelDataset(filepath=str(tmp_path / "calibrated"), made_by="calibration").save(bundle)
    assert client.get_model_version_by_alias("adv-detect", "champion").version == before
    newest = max(client.search_model_versions("name = 'adv-detect'"), key=lambda one: int(one.version))
    assert int(newest.version) > int(before)
    assert newest.tags["calibration_check"] == "as expected"


def test_the_signature_takes_the_example_and_gives_the_columns(bundle):
    signature = model_signature(bundle)
    example = example_images(bundle)
    table = score_images(bundle, example)
    assert signature.inputs is None  # tensors, or a column of pictures
    assert signature.outputs.input_names() == [*table.columns, "model_version"]
    assert {one.name: one.default for one in signature.params.params} == {"fpr": 0.05, "explain": False}
    assert (example.min(), example.max()) == bundle.network.spec.bounds


def test_a_package_of_others_becomes_a_requirement(tmp_path):
    code, requirements = serving_dependencies(["torchvision.models.resnet18", "lstm"], tmp_path)
    assert code == [str(tmp_path / "adv_detect")]
    assert f"torchvision=={version('torchvision').split('+')[0]}" in requirements
    assert "torchvision" not in " ".join(serving_dependencies(["small"], _fresh(tmp_path))[1])


@pytest.mark.parametrize("name", ["my_network.py", "my_network/__init__.py"])
def test_a_module_of_the_user_travels_along(tmp_path, monkeypatch, name):
    module = tmp_path / "own" / name
    module.parent.mkdir(parents=True)
    module.write_text("def build(num_classes): ...")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    code, _ = serving_dependencies(["small", "my_network.build"], _fresh(tmp_path))
    assert code[1] == str(tmp_path / "own" / name.split("/")[0])


@pytest.mark.slow
def test_it_scores_in_a_fresh_process_without_the_project(registered, tmp_path):
    images = np.random.default_rng(3).random((4, 1, 28, 28), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"MLFLOW_TRACKING_URI": registered.uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    empty = _fresh(tmp_path)
    command = [sys.executable, "-I", "-c", FRESH, str(tmp_path / "images.npy")]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (default, strict, error), loaded = json.loads(done.stdout.splitlines()[-1])
    for got, fpr in ((default, 0.05), (strict, 0.01)):
        expected = score_images(registered.bundle, images, fpr=fpr)
        assert got["predicted_class"] == list(expected["predicted_class"])
        np.testing.assert_allclose(got["adversarial_score"], expected["adversarial_score"], atol=1e-6)
        assert got["is_adversarial"] == list(expected["is_adversarial"])
        assert got["threshold"] == list(expected["threshold"])
    assert "fpr: expected a rate above 0 and below 1, such as 0.05, got 1.5" in error
    assert all("/artifacts/" in path for path in loaded.values())
    assert not [path for path in empty.iterdir()]


def _fresh(folder: Path) -> Path:
    made = folder / "empty"
    made.mkdir()
    return made
