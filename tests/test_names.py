from __future__ import annotations

import pytest

from adv_detect.names import DetectorKey, FeatureKey, ShardKey


@pytest.mark.parametrize(
    ("text", "key", "group"),
    [
        ("bim/targeted/test-0003", ShardKey("bim", "targeted", "test", 3), "bim/targeted"),
        ("natural/train-0000", ShardKey("natural", "none", "train", 0), "natural"),
        ("8bit/my-cw/untargeted/test-0012", ShardKey("my-cw", "untargeted", "test", 12, "8bit"), "my-cw/untargeted"),
        ("noise/natural/test-0001", ShardKey("natural", "none", "test", 1, "noise"), "natural"),
        ("benign/jpeg-75/validation-0002", ShardKey("natural", "none", "validation", 2, "benign/jpeg-75"), "natural"),
        ("bim/targeted/test-12345", ShardKey("bim", "targeted", "test", 12345), "bim/targeted"),
    ],
)
def test_keys_of_images_are_read_as_they_are_written(text, key, group):
    assert ShardKey.parse(text) == key
    assert key.text == text
    assert key.group == group
    assert key.natural.text == f"natural/{key.place}"


@pytest.mark.parametrize(
    "text", ["", "test-0", "bim/test-0000", "bim/targeted/0000", "a/b/c/test-0000", "bim/targeted/test-x"]
)
def test_other_texts_are_no_keys_of_images(text):
    with pytest.raises(ValueError, match=r"shard key: expected .*, got "):
        ShardKey.parse(text)


def test_keys_of_detectors_and_features_are_read_as_they_are_written():
    detector = DetectorKey("lstm", "both", "without-bim", 4)
    assert detector.text == "lstm/both/without-bim/4"
    assert DetectorKey.parse(detector.text) == detector
    assert FeatureKey.parse("00012/0003") == FeatureKey(12, 3)
    assert FeatureKey(12, 3).text == "00012/0003"
