"""Tiny synthetic faces in folders, and a finished main job on them."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from kedro.io import MemoryDataset
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from PIL import Image

from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.datasets.optional import OptionalDataset
from adv_detect.datasets.report_part import ReportPartDataset
from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    FacePairsParams,
    FaceRecognitionParams,
    TargetTrainingParams,
)
from adv_detect.pipelines import (
    adversarial_generation,
    detector_training,
    evaluation,
    face_recognition,
    feature_extraction,
    representatives,
    target_training,
    twin_training,
)

SHARDS = "adv_detect.datasets.sharded.ShardedSafetensorsDataset"
PEOPLE, IMAGES, SIDE = 5, 14, 28
TABLES = (
    "verification_pair_table",
    "verification_scores",
    "attacked_pair_scores",
    "representative_distances",
    "gate_scores",
    "gate_pairs",
    "validation_pair_scores",
    "face_gate",
    "face_gate_identification",
)


def draw_faces(root, *, people=PEOPLE, images=IMAGES):
    """Write images ``p0/p0_0001.png``: each person has a pattern of bright squares, seen through noise."""
    generator = torch.Generator().manual_seed(0)
    for person in range(people):
        pattern = torch.rand(7, 7, generator=generator).repeat_interleave(4, 0).repeat_interleave(4, 1)
        (root / f"p{person}").mkdir(parents=True)
        for number in range(1, images + 1):
            pixels = 0.6 * pattern + 0.4 * torch.rand(SIDE, SIDE, generator=generator)
            Image.fromarray((pixels * 255).to(torch.uint8).numpy()).save(root / f"p{person}/p{person}_{number:04d}.png")
    return root


def pairs_text(people=PEOPLE, *, folds=2, half=10):
    """Pairs in LFW's format; the last one asks for an image that does not exist."""
    same = [(f"p{p}", i, j) for i, j in combinations(range(1, 5), 2) for p in range(people)]
    different = [(f"p{p}", i, f"p{q}", i) for i in range(1, 4) for p, q in combinations(range(people), 2)]
    lines = [f"{folds}\t{half}"]
    for fold in range(folds):
        part = slice(fold * half, (fold + 1) * half)
        lines += ["\t".join(map(str, pair)) for pair in [*same[part], *different[part]]]
    lines[-1] = "p0\t1\tp1\t99"
    return "\n".join(lines)


def blocks():
    deep = {"attack": "deep-features", "norm": "linf"}
    bim = {"attack": "bim", "norm": "linf", "epsilon": 0.3, "arguments": {"steps": 6}}
    only_test = {"splits": ["test"], "train": False}
    attacks = {
        "bim": bim,
        "deep-features": deep | {"arguments": {"max_thres": 76, "iterations": 15}},
        "deep-confident": deep | only_test | {"arguments": {"max_thres": 76, "iterations": 8}, "return_early": False},
    }
    return {
        "target_training": TargetTrainingParams(head_only=True, min_accuracy=0.8),
        "adversarial_generation": AdversarialGenerationParams.model_validate({"attacks": attacks}),
        "detector_training": DetectorTrainingParams.model_validate(
            {
                "configurations": {"cosine": {"hidden": 4}, "other": {"hidden": 4, "distance": "euclidean"}},
                "leave_one_out": ["cosine"],
                "seeds": [0, 1],
                "fit": {"epochs": 2},
            }
        ),
        "face_recognition": FaceRecognitionParams(pairs=FacePairsParams(source="file"), fars=(0.1,)),
    }


def make_faces(workshop, folder, **changes):
    """A workshop whose images are faces in a folder."""
    if not (folder / "faces").exists():
        draw_faces(folder / "faces")
    shop = workshop(folder, **(blocks() | changes))
    faces = {"filepath": str(folder / "faces"), "colour": "grayscale"}
    for part in ("train", "test"):
        shop.catalog[f"{part}_images"] = ImageFolderDataset(**faces, part=part, test_fraction=0.6)
    shop.catalog["verification_images"] = ImageFolderDataset(**faces)
    shop.catalog["verification_pairs"] = MemoryDataset(pairs_text())
    for name in ("verification_embeddings", "attack_embeddings", "pair_image_scores"):
        shop.catalog[name] = ShardedSafetensorsDataset(filepath=str(folder / name))
    for name, place in (("known_adversarials", "adaptive_adversarials"), ("adaptive_embeddings",) * 2):
        shop.catalog[name] = OptionalDataset(dataset=SHARDS, filepath=folder / place, missing_is_absent=True)
    for name in TABLES:
        shop.catalog[name] = ParquetDataset(filepath=str(folder / f"{name}.parquet"))
    for name in ("face_verification", "face_identification"):
        shop.catalog[name] = ParquetDataset(filepath=str(folder / f"{name}.parquet"))
    for name in ("face_distances_csv", "deep_features_detection_csv"):
        shop.catalog[name] = CSVDataset(filepath=str(folder / f"{name}.csv"), save_args={"index": False})
    for name in ("verification_metrics", "face_metrics"):
        shop.catalog[name] = JSONDataset(filepath=str(folder / f"{name}.json"))
    shop.catalog["face_figures"] = MemoryDataset(copy_mode="assign")
    shop.catalog["face_recognition_part"] = ReportPartDataset(filepath=str(folder / "face_recognition.json"))
    return shop


@pytest.fixture(scope="session")
def faces(workshop):
    """Makes a workshop on faces: ``faces(folder, face_recognition=...)``."""
    return lambda folder, **changes: make_faces(workshop, folder, **changes)


@pytest.fixture(scope="session")
def identified(faces, tmp_path_factory):
    """The main job and face_recognition have run, up to the part of the report; read-only."""
    shop = faces(tmp_path_factory.mktemp("faces"))
    main = (target_training, twin_training, feature_extraction, representatives, adversarial_generation)
    for module in (*main, detector_training):
        shop.run(module.create_pipeline())
    shop.run(evaluation.create_pipeline().to_nodes("measure_detection"))
    shop.run(face_recognition.create_pipeline().to_nodes("write_face_part", "show_face_figures", "summarise_faces"))
    return shop
