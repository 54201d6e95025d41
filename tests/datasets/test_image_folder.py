from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from PIL import Image
from torchvision.transforms import v2

from adv_detect.datasets.file_sources import ZipSource
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.errors import ConfigurationError
from adv_detect.pictures import Header, Transform


def test_labels_follow_the_sorted_class_folders(folder):
    images = ImageFolderDataset(filepath=folder).load()
    assert images.class_names == ("ant", "bee", "cat")
    assert images.labels.tolist() == [0] * 4 + [1] * 5 + [2] * 2
    assert images.source_ids[4] == "bee/0.png"
    assert images.size == (8, 6)
    image, label = images[6]
    assert image[:, 0, 0].tolist() == [40, 2, 200]
    assert (image.shape, label) == ((3, 8, 6), 1)


def test_zip_gives_what_the_folder_gives(folder, archive):
    plain = ImageFolderDataset(filepath=folder).load()
    packed = ImageFolderDataset(filepath=archive, folder="faces").load()
    assert packed.source_ids == tuple(f"faces/{name}" for name in plain.source_ids)
    assert torch.equal(packed.labels, plain.labels)
    assert all(torch.equal(packed[index][0], plain[index][0]) for index in range(len(plain)))
    assert torch.equal(pickle.loads(pickle.dumps(packed))[3][0], plain[3][0])


def test_zip_is_reopened_in_another_process(archive, monkeypatch):
    source = ZipSource(str(archive))
    before = source._open()
    assert source._open() is before
    monkeypatch.setattr("os.getpid", lambda: -5)
    assert source._open() is not before
    assert source.read("faces/ant/0.png").startswith(b"\x89PNG")


def test_class_folders_one_level_deeper_are_hinted_at(archive):
    with pytest.raises(DatasetError, match=r"at least two class folders .* got \['faces'\]; .*folder: <name>"):
        ImageFolderDataset(filepath=archive).load()


def test_reads_through_fsspec(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/images", recursive=True)
    images = ImageFolderDataset(filepath="memory://bucket/images").load()
    assert images.source_ids[4] == "bee/0.png"
    assert images[4][0][:, 0, 0].tolist() == [40, 0, 200]


def test_parts_are_disjoint_and_hold_every_class(folder):
    def load(part):
        fractions = {"test_fraction": 0.4, "min_images_per_class": 3, "validation_fraction": 0.2}
        return ImageFolderDataset(filepath=folder, part=part, **fractions).load()

    parts = [load(part) for part in ("train", "validation", "test")]
    names = [name for part in parts for name in part.source_ids]
    assert len(names) == len(set(names)) == 9
    assert all(part.labels.unique().tolist() == [0, 1] for part in parts)
    assert all(part.class_names == ("ant", "bee") for part in parts)


def test_class_with_one_image_cannot_be_in_two_parts(folder):
    (folder / "cat" / "1.png").unlink()
    arguments = {"filepath": folder, "part": "test", "test_fraction": 0.4}
    with pytest.raises(DatasetError, match=r"class 'cat' has 1 image.*min_images_per_class: 2"):
        ImageFolderDataset(**arguments).load()
    assert ImageFolderDataset(**arguments, min_images_per_class=2).load().class_names == ("ant", "bee")


def test_small_classes_are_left_out_and_counted(folder, caplog):
    with caplog.at_level(logging.INFO, logger="adv_detect.datasets"):
        images = ImageFolderDataset(filepath=folder, min_images_per_class=4).load()
    assert images.class_names == ("ant", "bee")
    assert "1 classes left out that have fewer than 4 images" in caplog.text


def test_too_high_a_bound_is_an_error(folder):
    with pytest.raises(DatasetError, match=r"at least two classes with 5 or more usable images.*got 1 of 3"):
        ImageFolderDataset(filepath=folder, min_images_per_class=5).load()


def test_named_classes_decide_the_labels(folder, tmp_path):
    listed = tmp_path / "classes.txt"
    listed.write_bytes(b"\xef\xbb\xbfcat\r\nant\r\n\r\n")  # as an editor on Windows writes it
    for names in (["cat", "ant"], {"filepath": str(listed)}):
        images = ImageFolderDataset(filepath=folder, class_names=names).load()
        assert images.class_names == ("cat", "ant")
        assert images.labels.tolist() == [0] * 2 + [1] * 4


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "dog"], r"1 of 2 classes have fewer than 1 usable images in .*\['dog'\]"),
        ({"filepath": "nowhere.txt"}, "expected a list, or filepath: <text file>"),
        ({"file": "x"}, "expected a list, or filepath: <text file>"),
        (["ant", "ant"], "expected each name once"),
    ],
)
def test_wrong_class_lists_are_refused(folder, names, message):
    with pytest.raises((DatasetError, ConfigurationError), match=message):
        ImageFolderDataset(filepath=folder, class_names=names).load()


def test_limits_on_images_and_classes(folder):
    images = ImageFolderDataset(filepath=folder, max_images_per_class=3, max_classes=2).load()
    assert images.labels.bincount().tolist() == [3, 3]
    assert len(ImageFolderDataset(filepath=folder, max_images=6).load()) == 6


def damage_text(path):
    path.write_text("this is text")


def damage_empty(path):
    path.write_bytes(b"")


def damage_size(path):
    Image.new("RGB", (5, 5)).save(path)


def damage_pixels(path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:80])


DAMAGES = [
    (damage_text, "header", "not an image file"),
    (damage_empty, "header", "empty file"),
    (damage_size, "header", r"expected 8 x 6 \(height x width\) pixels, got 5 x 5"),
    (damage_pixels, "decode", "damaged"),
]


@pytest.mark.parametrize(("damage", "verify", "problem"), DAMAGES)
def test_bad_images_are_named(folder, damage, verify, problem):
    damage(folder / "bee" / "2.png")
    with pytest.raises(DatasetError, match=rf"1 of 11 images in .* bee/2\.png: {problem}.*on_error: skip"):
        ImageFolderDataset(filepath=folder, verify=verify).load()


@pytest.mark.parametrize(("damage", "verify", "problem"), DAMAGES)
def test_bad_images_are_skipped_and_counted(folder, caplog, damage, verify, problem):
    damage(folder / "bee" / "2.png")
    images = ImageFolderDataset(filepath=folder, verify=verify, on_error="skip").load()
    assert len(images) == 10
    assert "bee/2.png" not in images.source_ids
    assert "1 of 11 images" in caplog.text
    assert "left out" in caplog.text
    assert all(images[index][0].shape == (3, 8, 6) for index in range(10))


def test_many_bad_images_are_counted_not_all_named(folder):
    for index in range(4):
        damage_text(folder / "ant" / f"{index}.png")
        damage_text(folder / "bee" / f"{index}.png")
    with pytest.raises(DatasetError, match=r"8 of 11 images .*; and 3 more"):
        ImageFolderDataset(filepath=folder).load()


def test_class_that_shrinks_below_the_bound_by_skipping_goes(folder):
    damage_empty(folder / "cat" / "0.png")
    images = ImageFolderDataset(filepath=folder, on_error="skip", min_images_per_class=2).load()
    assert images.class_names == ("ant", "bee")


def test_folder_of_nothing_but_bad_images(folder):
    for path in folder.rglob("*.png"):
        damage_text(path)
    with pytest.raises(DatasetError, match="11 of 11 images"):
        ImageFolderDataset(filepath=folder).load()
    with pytest.raises(DatasetError, match=r"at least two classes with 1 or more usable images.*got 0 of 3"):
        ImageFolderDataset(filepath=folder, on_error="skip").load()


@pytest.mark.parametrize(("damage", "problem"), [(damage_text, "cannot be read as an image"), (damage_size, "5 x 5")])
def test_without_verification_a_bad_image_is_named_when_read(folder, damage, problem):
    damage(folder / "bee" / "2.png")
    images = ImageFolderDataset(filepath=folder, verify=False).load()
    with pytest.raises(ValueError, match=rf"bee/2\.png.*{problem}"):
        images[6]


def test_required_size(folder):
    with pytest.raises(DatasetError, match=r"11 of 11 .*expected 4 x 4"):
        ImageFolderDataset(filepath=folder, image_size=(4, 4)).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "skip", "verify": False}, "set verify: header or decode"),
        ({"on_error": "ignore"}, "on_error"),
        ({"colour": "cmyk"}, "colour"),
        ({"min_images_per_class": 0}, "min_images_per_class"),
        ({"part": "test"}, "part: expected one of"),
        ({"centre_crop": 224}, "centre_crop"),
    ],
)
def test_wrong_options_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolderDataset(filepath="anywhere", **arguments)


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "there is no image folder"), ("absent.zip", "no readable zip")]
)
def test_absent_place(tmp_path, name, message):
    dataset = ImageFolderDataset(filepath=tmp_path / name)
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=message):
        dataset.load()


def test_damaged_zip(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK not really")
    with pytest.raises(DatasetError, match="no readable zip archive"):
        ImageFolderDataset(filepath=tmp_path / "images.zip").load()


def test_identity_depends_on_the_transform(folder):
    plain = ImageFolderDataset(filepath=folder).load()
    smaller = ImageFolderDataset(filepath=folder, centre_crop=(4, 4)).load()
    assert plain.identity != smaller.identity
    assert smaller[0][0].shape == (3, 4, 4)


def test_identity_changes_when_a_file_is_replaced_by_another_image(folder):
    before = ImageFolderDataset(filepath=folder).load()
    again = ImageFolderDataset(filepath=folder).load()
    replaced = folder / before.source_ids[0]
    pixels = np.random.default_rng(7).integers(0, 255, (*before.size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(replaced)

    assert again.identity == before.identity
    assert ImageFolderDataset(filepath=folder).load().identity != before.identity


@pytest.mark.parametrize("size", [(40, 30), (31, 47), (33, 33)])
@pytest.mark.parametrize(("shorter", "crop"), [(20, (16, 12)), (None, (15, 9)), (23, None)])
def test_transform_agrees_with_torchvision(size, shorter, crop):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    steps = [v2.Resize(shorter)] if shorter else []
    expected = v2.functional.pil_to_tensor(v2.Compose([*steps, v2.CenterCrop(crop) if crop else v2.Identity()])(image))
    transform = Transform(resize_shorter_side=shorter, centre_crop=crop)
    result = transform.apply(image)
    assert torch.equal(result, expected)
    assert transform.size(Header(*size)) == tuple(result.shape[1:])


def test_grayscale_has_one_channel(folder):
    images = ImageFolderDataset(filepath=folder, colour="grayscale").load()
    assert images[0][0].shape == (1, 8, 6)


@pytest.mark.parametrize("image_size", [None, (10, 4)])
def test_crop_larger_than_all_images_is_refused(folder, image_size):
    with pytest.raises(DatasetError, match=r"11 of 11 .*8 x 6, smaller than the crop \(10, 4\)"):
        ImageFolderDataset(filepath=folder, centre_crop=(10, 4), image_size=image_size).load()


def test_crop_larger_than_one_image_is_refused_when_it_is_read(folder):
    damage_size(folder / "ant" / "1.png")
    images = ImageFolderDataset(filepath=folder, centre_crop=(8, 4), verify=False).load()
    with pytest.raises(ValueError, match=r"ant/1\.png.*5 x 5, smaller than the crop"):
        images[1]


def test_faces(shared_data):
    images = ImageFolderDataset(
        filepath=shared_data / "lfw-112x96.zip",
        folder="lfw-112x96",
        part="test",
        test_fraction=0.3,
        min_images_per_class=50,
    ).load()
    assert len(images.class_names) == 12
    assert images[0][0].shape == (3, 112, 96)
