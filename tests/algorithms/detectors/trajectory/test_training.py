from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from adv_detect.algorithms.detectors import score_trajectories
from adv_detect.algorithms.detectors.trajectory.sampling import balanced_draw, group_weights
from adv_detect.algorithms.detectors.trajectory.training import TrajectorySet, fit_readout, macro_auc
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorFitParams, DetectorParams

L, K = 3, 2
HISTORY = {"train_loss", "validation_loss", "validation_macro_auc", "learning_rate"}


def some_set(counts: dict[str, int], *, shift: float = 1.5, seed: int = 0) -> TrajectorySet:
    group = [name for name, count in counts.items() for _ in range(count)]
    adversarial = torch.tensor([name != "natural" for name in group])
    data = torch.randn(len(group), L, K, generator=torch.Generator().manual_seed(seed))
    data[:, -1] += shift * adversarial[:, None]
    return TrajectorySet(data, adversarial, group)


TRAIN = some_set({"natural": 60, "bim": 80, "cw": 20})
VALIDATION = some_set({"natural": 30, "bim": 20, "cw": 10}, seed=1)


def trained(kind="lstm", *, train=TRAIN, validation=VALIDATION, seed=0, **settings):
    accumulation = settings.pop("accumulation", 1)
    fit = DetectorFitParams(**{"epochs": 4, "batch_size": 32, "learning_rate": 0.01, **settings})
    params = DetectorParams(kind=kind, hidden=5)
    return fit_readout(train, validation, params=params, fit=fit, seed=seed, accumulation=accumulation)


@pytest.mark.leaves_rng_alone
@pytest.mark.parametrize("kind", ["lstm", "bilstm", "mlp"])
def test_two_runs_agree_bit_by_bit_and_leave_the_global_random_state_alone(kind):
    first, second, other = trained(kind), trained(kind), trained(kind, seed=1)
    assert first.history == second.history
    for name, tensor in first.detector.state_dict().items():
        assert torch.equal(tensor, second.detector.state_dict()[name]), name
    assert other.history != first.history


@pytest.mark.parametrize("kind", ["lstm", "bilstm", "mlp"])
def test_learns_what_can_be_learnt(kind):
    fitted = trained(kind, epochs=12)
    assert fitted.validation_macro_auc > 0.9
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_the_result_is_the_best_epoch_of_the_history():
    fitted = trained(epochs=6)
    assert all(set(epoch) == HISTORY for epoch in fitted.history)
    expected = max(
        range(len(fitted.history)),
        key=lambda epoch: (fitted.history[epoch]["validation_macro_auc"], -fitted.history[epoch]["validation_loss"]),
    )
    assert fitted.best_epoch == expected
    assert not fitted.detector.training
    scores = score_trajectories(fitted.detector, VALIDATION.trajectories)
    assert macro_auc(scores, VALIDATION.group) == fitted.validation_macro_auc
    assert fitted.validation_macro_auc == fitted.history[expected]["validation_macro_auc"]


def test_among_equal_aucs_the_lower_validation_loss_is_kept_but_patience_runs_on():
    easy = some_set({"natural": 40, "bim": 40}, shift=30.0)
    fitted = trained(train=easy, validation=easy, epochs=30, stop_patience=4)
    aucs = [epoch["validation_macro_auc"] for epoch in fitted.history]
    losses = [epoch["validation_loss"] for epoch in fitted.history]
    reached = aucs.index(1.0)
    assert len(aucs) == reached + 1 + 4
    assert fitted.best_epoch == losses.index(min(losses)) > reached


def test_validation_loss_weighs_every_group_equally():
    fitted = trained(epochs=1)
    losses = binary_cross_entropy_with_logits(
        score_trajectories(fitted.detector, VALIDATION.trajectories), VALIDATION.adversarial.float(), reduction="none"
    )
    groups = np.array(VALIDATION.group)
    expected = np.mean([losses.numpy()[groups == name].mean() for name in ("natural", "bim", "cw")])
    assert fitted.history[0]["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_standardisation_comes_from_the_training_rows_only():
    moved = TrajectorySet(VALIDATION.trajectories + 100, VALIDATION.adversarial, VALIDATION.group)
    fitted = trained(validation=moved, epochs=1)
    torch.testing.assert_close(fitted.detector.mean, TRAIN.trajectories.mean(dim=0))


def test_learning_rate_halves_on_a_stalled_validation_loss_down_to_its_floor():
    opposite = TrajectorySet(TRAIN.trajectories, ~TRAIN.adversarial, TRAIN.group)
    fitted = trained(validation=opposite, epochs=9, lr_patience=1, lr_floor=0.004, stop_patience=50)
    rates = [epoch["learning_rate"] for epoch in fitted.history]
    assert rates[0] == 0.01
    assert set(rates) == {0.01, 0.005, 0.004}
    assert rates == sorted(rates, reverse=True)


def test_stops_when_the_macro_auc_no_longer_rises():
    opposite = TrajectorySet(TRAIN.trajectories, ~TRAIN.adversarial, TRAIN.group)
    fitted = trained(validation=opposite, epochs=50, stop_patience=3, learning_rate=0.05)
    assert len(fitted.history) < 20
    aucs = [epoch["validation_macro_auc"] for epoch in fitted.history]
    assert max(aucs[-3:]) <= aucs[-4] == max(aucs)


def test_accumulated_small_batches_equal_one_large_batch():
    small, large = trained(batch_size=8, accumulation=4), trained(batch_size=32)
    assert [e["train_loss"] for e in small.history] == pytest.approx([e["train_loss"] for e in large.history], rel=1e-3)
    data = VALIDATION.trajectories
    torch.testing.assert_close(
        score_trajectories(small.detector, data), score_trajectories(large.detector, data), rtol=0.05, atol=0.02
    )
    with pytest.raises(ConfigurationError, match="accumulation: expected at least 1 batch, got 0"):
        trained(accumulation=0)


def test_inputs_are_not_changed():
    kept = TRAIN.trajectories.clone()
    trained(epochs=1)
    assert torch.equal(TRAIN.trajectories, kept)


@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize(("counts", "missing"), [({"natural": 9}, "adversarial"), ({"bim": 9}, "natural")])
def test_a_missing_side_is_named(where, counts, missing):
    with pytest.raises(DataError, match=f"in the {where} set, got no {missing} ones among 9"):
        trained(**{where: some_set(counts)})


def test_differing_shapes_are_refused():
    other = TrajectorySet(torch.zeros(2, L, K + 1), torch.tensor([True, False]), ["bim", "natural"])
    with pytest.raises(DataError, match=r"shape \(N, 3, 2\) as in train, got \(N, 3, 3\)"):
        trained(validation=other)


@pytest.mark.parametrize(
    ("trajectories", "adversarial", "group", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([True, False]), ["a", "b"], r"shape \(N, L, K\), got \(2, 3\)"),
        (torch.zeros(2, L, K), torch.tensor([1, 0]), ["a", "b"], "expected 2 bool labels"),
        (torch.zeros(2, L, K), torch.tensor([True]), ["a", "b"], r"labels of shape \(1,\)"),
        (torch.zeros(2, L, K), torch.tensor([True, False]), ["a"], "and 1 groups"),
        (torch.zeros(2, L, K), torch.tensor([True, False]), ["a", "a"], r"got both in \['a'\]"),
        (torch.full((2, L, K), torch.inf), torch.tensor([True, False]), ["a", "b"], "finite trajectories"),
    ],
)
def test_inconsistent_sets_are_refused(trajectories, adversarial, group, message):
    with pytest.raises(DataError, match=message):
        TrajectorySet(trajectories, adversarial, group)


def test_groups_may_be_names_or_numbers():
    named = some_set({"natural": 2, "bim": 3, "cw": 1})
    numbered = TrajectorySet(named.trajectories, named.adversarial, torch.tensor([7, 7, 2, 2, 2, 5]))
    assert named.group_ids.tolist() == [2, 2, 0, 0, 0, 1]
    assert torch.equal(named.group_ids, numbered.group_ids)
    assert len(named) == 6


def test_group_weights_by_hand():
    weights = group_weights(torch.tensor([0, 0, 0, 1, 3, 3]))
    torch.testing.assert_close(weights, torch.tensor([1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6]).double())


def test_draws_are_balanced_repeatable_and_never_of_weight_zero():
    groups = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
    weights = group_weights(groups)
    weights[-1] = weights[0] = 0
    drawn = balanced_draw(weights, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, balanced_draw(weights, torch.Generator().manual_seed(0)))
    assert drawn.shape == groups.shape
    assert not {0, len(groups) - 1} & set(drawn.tolist())
    shares = torch.bincount(groups[drawn]) / len(groups)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.02, rtol=0)


@pytest.mark.parametrize("ties", [False, True])
def test_macro_auc_is_the_mean_of_scikit_learns(ties):
    scores = torch.randn(300, generator=torch.Generator().manual_seed(0)) * 40
    scores = scores.div(20).round() if ties else scores
    group = np.array(["natural", "bim", "cw"])[np.arange(300) % 7 % 3]
    expected = np.mean(
        [
            roc_auc_score(group[chosen] != "natural", scores.numpy()[chosen])
            for chosen in (group != "cw", group != "bim")
        ]
    )
    assert macro_auc(scores, group.tolist()) == pytest.approx(expected, abs=1e-12)
    numbers = torch.as_tensor(np.unique(group, return_inverse=True)[1])
    flags = torch.as_tensor(group != "natural")
    assert macro_auc(scores, numbers, adversarial=flags) == pytest.approx(expected, abs=1e-12)


def test_macro_auc_by_hand():
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 60.0])
    assert macro_auc(scores, ["natural", "natural", "bim", "bim", "cw"]) == ((0.5 + 0.75) / 2 + 1.0) / 2


def test_macro_auc_refuses_nan_and_a_missing_side():
    with pytest.raises(DataError, match="NaN"):
        macro_auc(torch.tensor([torch.nan, 1.0]), ["natural", "bim"])
    with pytest.raises(DataError, match="0 natural"):
        macro_auc(torch.ones(2), ["bim", "cw"])


@pytest.mark.gpu
@pytest.mark.leaves_rng_alone
def test_trains_on_the_gpu_and_leaves_its_random_state_alone():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    before = torch.cuda.get_rng_state()
    settings = {"params": DetectorParams(kind="mlp", hidden=5), "fit": DetectorFitParams(epochs=12, batch_size=32)}
    fitted = fit_readout(TRAIN, VALIDATION, seed=0, device="cuda", **settings)
    assert torch.equal(before, torch.cuda.get_rng_state())
    assert next(fitted.detector.parameters()).device.type == "cpu"
    assert fitted.validation_macro_auc > 0.7
