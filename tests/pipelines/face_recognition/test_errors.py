"""Inputs that are wrong: each is refused before any work, with what to do about it."""

from __future__ import annotations

import pytest
import torch
from kedro.io import DatasetError, MemoryDataset
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from adv_detect.absent import ABSENT
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.errors import CheckpointError, DataError
from adv_detect.networks import build_network
from adv_detect.params import FaceRecognitionParams, NetworkParams, TargetTrainingParams
from adv_detect.pipelines import face_recognition, target_training
from adv_detect.pipelines.face_recognition.nodes import embed_faces


def pairs_of(shop):
    return str(shop["verification_pairs"]).splitlines()


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        (0, "two 10", r"verification_pairs, line 1: expected a header 'folds n'"),
        (3, "p0 1 p1 2", r"verification_pairs, line 4: expected 'name i j' \(same person\), got 'p0 1 p1 2'"),
        (12, "p0 1 p1 two", r"verification_pairs, line 13: .*got 'two' for a number"),
        (40, "", r"expected 40 pairs .* got 39; the file is cut off"),
    ],
)
def test_wrong_pairs_file(faces, identified, tmp_path, line, wrong, message):
    lines = pairs_of(identified)
    lines[line] = wrong
    shop = faces(tmp_path)
    shop.catalog["verification_pairs"] = MemoryDataset("\n".join(lines))
    with pytest.raises(DataError, match=message):
        shop.run(face_recognition.create_pipeline().only_nodes("choose_pairs"))
    assert not (tmp_path / "verification_embeddings").exists()


def test_pairs_of_other_people(faces, identified, tmp_path):
    shop = faces(tmp_path)
    text = str(identified["verification_pairs"]).replace("p", "q")
    shop.catalog["verification_pairs"] = MemoryDataset(text)
    with pytest.raises(DataError, match=r"none of 40 pairs is in the data: asked for example 'q0/q0_0001'"):
        shop.run(face_recognition.create_pipeline().only_nodes("choose_pairs"))


def test_missing_images_are_named(identified, caplog):
    from adv_detect.pipelines.face_recognition.nodes import choose_pairs

    caplog.set_level("WARNING")
    table = choose_pairs(
        identified["verification_images"],
        identified["verification_pairs"],
        identified["params:face_recognition"],
        identified["params:runtime"],
    )
    assert "1 pairs left out, for lack of 1 images: p1/p1_0099" in caplog.text
    assert (table["first_index"] == -1).sum() == 1


def test_identity_with_one_image(faces, tmp_path):
    shop = faces(tmp_path)
    (tmp_path / "faces/hermit").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "faces/hermit/hermit_0001.png")
    with pytest.raises(DatasetError, match=r"class 'hermit' has 1 image, .*min_images_per_class: 2"):
        shop.run(target_training.create_pipeline())
    assert not (tmp_path / "network.safetensors").exists()


def test_png_that_is_a_text_file(faces, tmp_path):
    shop = faces(tmp_path)
    (tmp_path / "faces/p1/p1_0003.png").write_text("I am a text")
    with pytest.raises(DatasetError, match=r"1 of 70 images .*p1/p1_0003.png: not an image file; .*on_error: skip"):
        shop.run(target_training.create_pipeline())
    with pytest.raises(DatasetError, match=r"p1/p1_0003.png: not an image file"):
        shop.run(face_recognition.create_pipeline().only_nodes("choose_pairs"))


def test_checkpoint_for_another_number_of_people(faces, tmp_path):
    checkpoint = tmp_path / "network-of-nine.safetensors"
    save_file(build_network("small", num_classes=9).state_dict(), checkpoint)
    network = NetworkParams(checkpoint=str(checkpoint))
    shop = faces(tmp_path, network=network, target_training=TargetTrainingParams(head_only=False))
    with pytest.raises((CheckpointError, DatasetError), match=r"network-of-nine.*9 classes.*5"):
        shop.run(target_training.create_pipeline())
    assert not (tmp_path / "network.safetensors").exists()


def test_verification_images_of_another_size(identified, tmp_path):
    for person in ("a", "b"):
        (tmp_path / "large" / person).mkdir(parents=True)
        Image.new("RGB", (30, 40)).save(tmp_path / f"large/{person}/1.png")
    images = ImageFolderDataset(filepath=str(tmp_path / "large")).load()
    with pytest.raises(DataError, match=r"verification_images: expected images of shape \(1, 28, 28\).*\(3, 40, 30\)"):
        embed_faces(
            images,
            identified["network_weights"],
            ABSENT,
            identified["verification_pair_table"],
            FaceRecognitionParams(),
            identified["params:runtime"],
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": {"number": 7}},
        {"pairs": {"source": "guessed"}},
        {"fars": [1.0]},
        {"thresholds": ["best"]},
        {"thresholds": []},
        {"galleries": ["mediod"]},
        {"neighbors": 3},
    ],
)
def test_parameters_are_checked(wrong):
    with pytest.raises(ValidationError):
        FaceRecognitionParams.model_validate(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_embeddings_made_on_a_gpu_come_back(identified):
    from adv_detect.params import RuntimeParams
    from adv_detect.pipelines.face_recognition.nodes import embed_attacked_faces

    plan = embed_attacked_faces(
        identified["adversarials"],
        identified["network_weights"],
        ABSENT,
        FaceRecognitionParams(mirror=True),
        RuntimeParams(device="cuda"),
    )
    tensors = plan.work("natural/test-0000").tensors
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
