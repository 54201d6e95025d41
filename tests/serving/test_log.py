"""The log of scored images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from tests.served import draw_images

from adv_detect.errors import DataError
from adv_detect.measures.monitoring import sketch_bits
from adv_detect.serving.bundle import ScoringBundle, score_images
from adv_detect.serving.log import LoggedBundle, ScoringLog, with_log


def read(folder):
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("scores-*.parquet"))], ignore_index=True)


def test_scores_are_the_same_and_each_image_is_a_row(bundle, tmp_path):
    logged = LoggedBundle(bundle, ScoringLog(tmp_path, bundle, clock=lambda: 1.75e9))
    images = draw_images(5, 3).numpy()
    table = logged.score(images, {"fpr": 0.01}, model=logged.model().eval())
    pd.testing.assert_frame_equal(table, score_images(bundle, images, fpr=0.01))
    assert not list(tmp_path.iterdir())  # held until there are enough
    logged.log.flush()
    rows = read(tmp_path)
    assert list(rows["adversarial_score"]) == list(table["adversarial_score"])
    assert set(rows["fpr"]) == {0.01}
    assert rows["time"].iloc[0] == pd.Timestamp(1.75e9, unit="s", tz="UTC")
    assert rows["digest"].nunique() == 5
    assert set(rows["digest"].str.len()) == {32}
    assert "images" not in rows


def test_sketches_of_near_images_differ_in_few_bits(bundle, tmp_path):
    log = ScoringLog(tmp_path, bundle)
    logged = LoggedBundle(bundle, log)
    image = draw_images(1, 3).numpy()
    near = np.clip(image + 1e-3 * np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32), 0, 1)
    logged.score(np.concatenate([image, near, draw_images(1, 4).numpy(), image]), {})
    log.flush()
    rows = read(tmp_path)
    bits = [sketch_bits(one) for one in rows["sketch"]]
    assert rows["digest"][0] == rows["digest"][3] != rows["digest"][1]
    assert (bits[0] != bits[3]).sum() == 0
    assert (bits[0] != bits[1]).sum() < (bits[0] != bits[2]).sum()
    assert (bits[0] != bits[1]).mean() < 0.05


def test_the_share_of_differing_bits_is_the_angle(bundle, tmp_path):
    log = ScoringLog(tmp_path, bundle)
    centre = bundle.representatives.centroids[-1].float().mean(dim=0)
    first, second = torch.zeros(2, len(centre))
    first[0], second[0], second[1] = 1.0, 1.0, 1.0  # 45 degrees
    one, two = (sketch_bits(text) for text in log.sketches(torch.stack([centre + first, centre + second])))
    assert (one != two).mean() == pytest.approx(0.25, abs=0.12)  # three standard errors of 128 bits


def test_files_rotate(bundle, tmp_path):
    ticks = count(1.75e9)
    log = ScoringLog(tmp_path, bundle, rows=4, files=2, clock=lambda: next(ticks))
    logged = LoggedBundle(bundle, log)
    for seed in range(4):
        logged.score(draw_images(4, seed).numpy(), {})
    assert len(list(tmp_path.glob("scores-*.parquet"))) == 2
    assert len(read(tmp_path)) == 8
    assert not list(tmp_path.glob(".*"))


def test_threads_lose_nothing(bundle, tmp_path):
    logged = LoggedBundle(bundle, ScoringLog(tmp_path, bundle, rows=3))
    model = logged.model().eval()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: logged.score(draw_images(2, seed).numpy(), {}, model=model), range(12)))
    logged.log.flush()
    rows = read(tmp_path)
    assert len(rows) == 24
    expected = score_images(bundle, torch.cat([draw_images(2, seed) for seed in range(12)]).numpy())
    np.testing.assert_allclose(sorted(rows["adversarial_score"]), sorted(expected["adversarial_score"]), atol=1e-6)


def test_only_where_the_environment_asks_for_it(bundle, tmp_path, monkeypatch):
    monkeypatch.delenv("ADV_DETECT_LOG", raising=False)
    assert isinstance(with_log(bundle), ScoringBundle)
    monkeypatch.setenv("ADV_DETECT_LOG", str(tmp_path / "log"))
    assert isinstance(with_log(bundle), LoggedBundle)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADV_DETECT_LOG", str(tmp_path / "file"))
    with pytest.raises(DataError, match="ADV_DETECT_LOG: expected a folder that can be written to"):
        with_log(bundle)
