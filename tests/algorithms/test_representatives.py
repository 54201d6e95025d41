"""Class representatives of several layers."""

from __future__ import annotations

import json
import weakref

import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

from adv_detect.algorithms.representatives import (
    Representatives,
    centroid,
    fit_representatives,
    medoid_index,
    representatives_digest,
    representatives_from_tensors,
    representatives_tensors,
)
from adv_detect.algorithms.trajectories import trajectories
from adv_detect.algorithms.whitening import inverse_square_root
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import RepresentativesParams

LAYERS = ("first", "second")
CLASSES = ("cat", "dog", "owl")
PARAMS = RepresentativesParams()


def class_features(sizes=(12, 1, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    for index, size in enumerate(sizes):
        features = [torch.randn(size, width, generator=generator) * 3 + index for width in (4, 6)]
        yield index, features, [f"image-{index}-{row}" for row in range(size)]


def fit(stream, **kwargs) -> Representatives:
    return fit_representatives(stream, layers=LAYERS, class_names=CLASSES, params=PARAMS, **kwargs)


def test_centroid_by_hand():
    mean = centroid(torch.tensor([[0.0, 2.0], [4.0, 4.0]]))
    assert mean.tolist() == [2.0, 3.0]
    assert mean.dtype == torch.float32


def test_centroid_keeps_digits_far_from_zero():
    features = torch.full((10_000, 1), 4097.3)
    assert centroid(features).item() == features[0].item()


@pytest.mark.parametrize("features", [torch.zeros(0, 2), torch.zeros(2)])
def test_centroid_of_nothing(features):
    with pytest.raises(DataError, match="at least one row"):
        centroid(features)


def test_every_class_and_layer_has_its_representatives():
    fitted = fit(class_features())
    for index, features, names in class_features():
        for layer, values in enumerate(features):
            medoid = medoid_index(values)
            assert torch.equal(fitted.of("medoid")[layer][index], values[medoid])
            assert fitted.medoid_source_ids[layer][index] == names[medoid]
            torch.testing.assert_close(fitted.of("centroid")[layer][index], values.mean(dim=0))
    assert [tuple(one.shape) for one in fitted.whitening] == [(4, 4), (6, 6)]


def test_euclidean_after_whitening_is_the_mahalanobis_distance_of_scipy():
    fitted = fit(class_features((40, 30, 50)))
    queries = [torch.randn(9, width, generator=torch.Generator().manual_seed(5)) for width in (4, 6)]
    measured = trajectories(queries, fitted.medoids, "mahalanobis", whitening=fitted.whitening)
    for layer in range(2):
        streamed = [features[layer].double() for _, features, _ in class_features((40, 30, 50))]
        centred = torch.cat([one - one.mean(dim=0) for one in streamed])
        precision = LedoitWolf(assume_centered=True).fit(centred.numpy()).precision_
        points = [queries[layer].double().numpy(), fitted.medoids[layer].double().numpy()]
        expected = torch.from_numpy(cdist(*points, metric="mahalanobis", VI=precision)).float()
        torch.testing.assert_close(measured[:, layer], expected, rtol=1e-5, atol=1e-5)


def test_classes_may_come_as_a_function_and_in_any_order():
    one = fit(class_features)
    other = fit(iter(sorted(class_features(), reverse=True, key=lambda part: part[0])))
    for first, second in zip(one.medoids + one.centroids, other.medoids + other.centroids, strict=True):
        assert torch.equal(first, second)
    torch.testing.assert_close(one.whitening[0], other.whitening[0])


def test_features_of_one_class_are_gone_before_the_next():
    references = []

    def stream():
        for index in range(3):
            assert all(reference() is None for reference in references[:-1])
            features = [torch.rand(5, width, generator=torch.Generator().manual_seed(index)) for width in (4, 6)]
            references.append(weakref.ref(features[1]))
            yield index, features, list("abcde")

    fit(stream)
    assert len(references) == 3


def test_the_shrinkage_sample_is_bounded_and_seeded():
    params = RepresentativesParams(shrinkage_samples=8)
    arguments = {"layers": LAYERS, "class_names": CLASSES, "params": params}
    first = fit_representatives(class_features, seed=0, **arguments)
    again = fit_representatives(class_features, seed=0, **arguments)
    other = fit_representatives(class_features, seed=1, **arguments)
    assert torch.equal(first.whitening[0], again.whitening[0])
    assert not torch.equal(first.whitening[0], other.whitening[0])


def test_inputs_stay_as_they_are():
    parts = list(class_features())
    before = [layer.clone() for _, features, _ in parts for layer in features]
    fitted = fit(parts)
    fitted.medoids[0].zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, [x for _, f, _ in parts for x in f], strict=True))


def test_layers_that_never_vary_get_the_identity():
    parts = [(index, [torch.ones(3, 2), torch.full((3, 2), index * 1.0)], ["a", "b", "c"]) for index in range(3)]
    fitted = fit(parts)
    assert torch.equal(fitted.whitening[0], torch.eye(2))
    assert fitted.medoid_source_ids[0] == ["a", "a", "a"]


def test_classes_without_images_are_all_named():
    with pytest.raises(DataError, match=r"got none for \['cat', 'owl'\]"):
        fit(class_features((0, 3, 0)))
    with pytest.raises(DataError, match=r"got none for \['cat', 'dog', 'owl'\]"):
        fit([])


def test_wrong_parts_are_refused():
    parts = list(class_features())
    with pytest.raises(DataError, match=r"each class 0 to 2 once, got 0 after \[0, 1, 2\]"):
        fit([*parts, parts[0]])
    with pytest.raises(DataError, match="each class 0 to 2 once, got 3"):
        fit([(3, *parts[0][1:])])
    with pytest.raises(DataError, match=r"shapes \[\(7, 4\), \(7, 6\)\] for class 'owl'.*got \[\(7, 6\), \(7, 4\)\]"):
        fit([*parts[:2], (2, parts[2][1][::-1], parts[2][2])])
    with pytest.raises(DataError, match=r"shapes \[\(11, 4\), \(11, 6\)\] for class 'cat'"):
        fit([(0, parts[0][1], parts[0][2][1:])])
    with pytest.raises(DataError, match="finite"):
        fit([(0, [layer * float("nan") for layer in parts[0][1]], parts[0][2])])


def test_round_trip_through_tensors_and_json():
    fitted = fit(class_features())
    tensors, names = representatives_tensors(fitted)
    restored = representatives_from_tensors(tensors, json.loads(json.dumps(names)))
    assert (restored.layers, restored.class_names) == (LAYERS, CLASSES)
    assert restored.medoid_source_ids == fitted.medoid_source_ids
    assert representatives_digest(restored) == representatives_digest(fitted)
    assert all(torch.equal(a, b) for a, b in zip(restored.whitening, fitted.whitening, strict=True))
    with pytest.raises(DataError, match=r"whitening.001.* is missing"):
        representatives_from_tensors({key: one for key, one in tensors.items() if key != "whitening.001"}, names)


def test_the_digest_sees_every_part():
    fitted = fit(class_features())
    moved = fit(class_features(seed=1))
    assert representatives_digest(fitted) != representatives_digest(moved)


def test_unknown_kind_lists_the_choices():
    with pytest.raises(ConfigurationError, match=r"expected one of \[centroid, medoid\], got 'mean'"):
        fit(class_features()).of("mean")


def test_to_gives_a_copy_on_the_device():
    moved = fit(class_features()).to("meta")
    assert {one.device.type for one in moved.medoids + moved.centroids + moved.whitening} == {"meta"}


def test_whitening_is_symmetric_and_inverts_a_covariance():
    whitening = fit(class_features((50, 50, 50))).whitening[1].double()
    torch.testing.assert_close(whitening, whitening.T)
    covariance = torch.linalg.inv(whitening @ whitening)
    torch.testing.assert_close(inverse_square_root(covariance), whitening, rtol=1e-6, atol=1e-6)
