"""One contract for every kind of detector."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from adv_detect.algorithms.detectors import (
    BidirectionalReadout,
    MLPReadout,
    SequenceReadout,
    build_readout,
    random_readout,
    readout_kinds,
    score_trajectories,
)
from adv_detect.algorithms.detectors.trajectory.readout import STD_FLOOR
from adv_detect.errors import ConfigurationError, DataError, NotFittedError
from adv_detect.params import DetectorParams

L, K, HIDDEN = 4, 3, 6
PARAMS = {kind: DetectorParams(kind=kind, hidden=HIDDEN) for kind in ("lstm", "bilstm", "mlp")}


def some_trajectories(rows: int = 7, *, seed: int = 0) -> torch.Tensor:
    draws = torch.randn(rows, L, K, generator=torch.Generator().manual_seed(seed))
    return draws * torch.tensor([0.1, 3.0, 20.0]) + torch.tensor([5.0, -2.0, 40.0])


@pytest.fixture(params=["lstm", "bilstm", "mlp"])
def kind(request):
    return request.param


@pytest.fixture
def detector(kind):
    return random_readout(PARAMS[kind], L, K, 3, some_trajectories(50))


def test_the_contract_covers_every_registered_kind():
    assert set(PARAMS) == set(readout_kinds())


def test_gives_one_float32_logit_per_trajectory(detector):
    scores = detector(some_trajectories(7))
    assert scores.shape == (7,)
    assert scores.dtype == torch.float32
    assert scores.unique().numel() == 7


@pytest.mark.leaves_rng_alone
def test_the_seed_decides_the_weights_and_nothing_else_changes(kind):
    first, second, other = (build_readout(PARAMS[kind], layers=L, classes=K, seed=seed) for seed in (1, 1, 2))
    for (name, one), two in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_rows_are_scored_independently_and_in_order(detector):
    data = some_trajectories(7)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(detector(data)[order], detector(data[order]))
    torch.testing.assert_close(detector(data)[2:3], detector(data[2:3]))


def test_standardisation_matches_numpy_and_makes_scores_independent_of_units(kind):
    data = some_trajectories(40)
    detector = build_readout(PARAMS[kind], layers=L, classes=K).eval()
    detector.fit_standardisation(data)
    torch.testing.assert_close(detector.mean.numpy(), data.numpy().mean(axis=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(detector.std.numpy(), data.numpy().std(axis=0), rtol=1e-5, atol=1e-5)
    scores = detector(data)
    detector.fit_standardisation(data * 1000 - 7)
    torch.testing.assert_close(detector(data * 1000 - 7), scores, rtol=1e-3, atol=1e-4)


def test_state_dict_travels_through_safetensors(detector, kind, tmp_path):
    data = some_trajectories(9, seed=5)
    save_file(detector.state_dict(), tmp_path / "detector.safetensors")
    again = build_readout(PARAMS[kind], layers=L, classes=K, seed=99).eval()
    assert not again.fitted
    again.load_state_dict(load_file(tmp_path / "detector.safetensors"))
    assert again.fitted
    assert torch.equal(again.std, detector.std)
    assert torch.equal(again(data), detector(data))
    assert torch.equal(copy.deepcopy(again)(data), detector(data))


def test_loading_an_unfitted_state_dict_leaves_it_unfitted(kind):
    unfitted, fitted = (build_readout(PARAMS[kind], layers=L, classes=K) for _ in range(2))
    fitted.fit_standardisation(some_trajectories())
    fitted.load_state_dict(unfitted.state_dict())
    with pytest.raises(NotFittedError, match=f"expected a fitted {kind} detector.*call fit_standardisation"):
        fitted(some_trajectories())


def test_gradients_reach_the_trajectories_and_are_right(detector):
    detector = detector.double()
    data = some_trajectories(2).double().requires_grad_()
    assert torch.autograd.gradcheck(detector, data, eps=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(detector(data).sum(), data)
    assert (gradient[:, -1].abs() > 0).all()


def test_scores_far_above_17_keep_their_order(detector):
    data = some_trajectories(30)
    before = detector(data)
    with torch.no_grad():
        detector.classifier.weight.mul_(1e4)
        detector.classifier.bias.fill_(1e4)
        after = detector(data)
    assert (after > 17).sum() > 20
    assert after.unique().numel() == 30
    assert torch.equal(after.argsort(), before.argsort())


def test_half_precision_trajectories_are_scored_in_float32(detector):
    data = some_trajectories(5).half()
    assert torch.equal(detector(data), detector(data.float()))


def test_a_constant_distance_is_divided_by_the_floor(kind):
    data = some_trajectories(10)
    data[:, 1, 2] = 4.0
    detector = random_readout(PARAMS[kind], L, K, 0, data)
    assert detector.std[1, 2] == torch.tensor(STD_FLOOR)
    assert detector(data).isfinite().all()
    assert random_readout(PARAMS[kind], L, K, 0, data[:1])(data[:1]).isfinite().all()


def test_inputs_are_not_changed(detector):
    data = some_trajectories(5)
    kept = data.clone()
    detector(data)
    detector.fit_standardisation(data)
    assert torch.equal(data, kept)


@pytest.mark.parametrize("shape", [(2, L, K + 1), (2, L + 1, K), (L, K), (2, K, L)])
def test_wrong_shapes_are_refused(detector, kind, shape):
    with pytest.raises(DataError, match=rf"shape \(N, {L}, {K}\) for this {kind} detector, got \({shape[0]}, "):
        detector(torch.zeros(shape))


def test_unfitted_is_refused(kind):
    with pytest.raises(NotFittedError, match=f"expected a fitted {kind} detector"):
        build_readout(PARAMS[kind], layers=L, classes=K)(some_trajectories())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(0, L, K), "at least one trajectory"),
        (torch.full((2, L, K), float("nan")), "finite trajectories"),
        (torch.zeros(2, L, K + 2), "expected trajectories of shape"),
    ],
)
def test_unusable_training_trajectories_are_refused(kind, data, message):
    with pytest.raises(DataError, match=message):
        build_readout(PARAMS[kind], layers=L, classes=K).fit_standardisation(data)


def test_no_trajectories_give_no_scores(detector):
    assert detector(torch.zeros(0, L, K)).shape == (0,)
    assert score_trajectories(detector, torch.zeros(0, L, K)).shape == (0,)


def test_scoring_in_blocks_equals_scoring_at_once_and_restores_the_mode(detector):
    data = some_trajectories(11)
    expected = detector(data).detach()
    detector.train()
    scores = score_trajectories(detector, data, block=4)
    assert detector.training
    assert not scores.requires_grad
    torch.testing.assert_close(scores, expected)


def test_untrained_control_without_trajectories_reads_distances_as_they_are(kind):
    detector = random_readout(PARAMS[kind], layers=L, classes=K, seed=1)
    data = some_trajectories(3)
    assert not detector.training
    assert torch.equal(detector(data), detector.logits(data))


def test_bidirectional_shortcut_equals_the_whole_lstm():
    detector = random_readout(PARAMS["bilstm"], L, K, 0, some_trajectories())
    assert isinstance(detector, BidirectionalReadout)
    data = (some_trajectories() - detector.mean) / detector.std
    torch.testing.assert_close(detector.last_output(data), detector.lstm(data)[0][:, -1])
    torch.testing.assert_close(detector.last_output(data), SequenceReadout.last_output(detector, data))


def test_lstm_of_one_unit_by_hand():
    detector = SequenceReadout(1, 1, hidden=1)
    detector.set_standardisation(torch.zeros(1, 1), torch.ones(1, 1))
    with torch.no_grad():
        for weights in detector.parameters():
            weights.zero_()
        detector.lstm.weight_ih_l0[2] = 1.0
        detector.classifier.weight.fill_(2.0)
        score = detector(torch.full((1, 1, 1), 0.5))
    candidate = torch.tensor(0.5).tanh()  # all gates are half open
    torch.testing.assert_close(score, (2 * 0.5 * (0.5 * candidate).tanh()).reshape(1))


def test_mlp_by_hand_and_its_dropout_in_training():
    detector = MLPReadout(1, 2, hidden=2)
    detector.set_standardisation(torch.zeros(1, 2), torch.ones(1, 2))
    with torch.no_grad():
        detector.fc[0].weight.copy_(torch.eye(2))
        detector.fc[0].bias.zero_()
        detector.classifier.weight.copy_(torch.tensor([[1.0, 10.0]]))
        detector.classifier.bias.fill_(-1.0)
    data = torch.tensor([[[3.0, -4.0]]])
    assert detector.eval()(data).item() == 2.0
    with torch.random.fork_rng(devices=[]):
        trained = {detector.train()(data).item() for _ in range(40)}
    assert trained == {-1.0, 5.0}


@pytest.mark.parametrize(("layers", "classes"), [(0, 3), (3, 0)])
def test_empty_trajectories_cannot_be_built_for(kind, layers, classes):
    with pytest.raises(ConfigurationError, match=f"layers={layers}, classes={classes}"):
        build_readout(PARAMS[kind], layers=layers, classes=classes)


def test_unknown_kind_lists_the_valid_ones():
    params = DetectorParams.model_construct(kind="gru", hidden=3)
    with pytest.raises(ConfigurationError, match=r"kind: expected one of \[bilstm, lstm, mlp\], got 'gru'"):
        build_readout(params, layers=L, classes=K)


@pytest.mark.gpu
def test_bidirectional_is_the_same_on_the_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    detector = random_readout(PARAMS["bilstm"], L, K, 0, some_trajectories())
    expected = detector(some_trajectories())
    torch.testing.assert_close(score_trajectories(detector.cuda(), some_trajectories()), expected.detach())
