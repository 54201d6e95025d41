"""Published detectors: their files, their names, their scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.detectors import load_reference_detector, parse_reference_name
from adv_detect.errors import CheckpointError, ConfigurationError, DataError

L, C, H = 5, 4, 3
NAME = "best_model_with_arch_lstm_method_m_dist_cosine_criterion_t_lr_0.0003_bs_32_ba_4_weightd_0.pth"


def lstm_tensors(*, bidirectional: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    suffixes = ("", "_reverse") if bidirectional else ("",)
    shapes = {"weight_ih_l0": (4 * H, C), "weight_hh_l0": (4 * H, H), "bias_ih_l0": (4 * H,), "bias_hh_l0": (4 * H,)}
    named = {f"lstm.{name}{suffix}": shape for suffix in suffixes for name, shape in shapes.items()}
    return drawn({**named, "classifier.weight": (1, H * len(suffixes)), "classifier.bias": (1,)}, seed)


def mlp_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    return drawn(
        {"fc.0.weight": (H, L * C), "fc.0.bias": (H,), "classifier.weight": (1, H), "classifier.bias": (1,)}, seed
    )


def drawn(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save(path, tensors, **others):
    torch.save({"detector": tensors, **others}, path)
    return path


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def numpy_lstm(tensors, rows, suffix=""):
    """Outputs (L, H) of one direction for one trajectory (L, C), in the order in which the rows come."""
    w, u, b, a = (
        tensors[f"lstm.{name}{suffix}"].double().numpy()
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    )
    state, cell, outputs = np.zeros(H), np.zeros(H), []
    for row in rows:
        gates = (w @ row + u @ state + b + a).reshape(4, H)
        cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * np.tanh(gates[2])
        state = sigmoid(gates[3]) * np.tanh(cell)
        outputs.append(state)
    return np.stack(outputs)


def numpy_score(tensors, trajectory):
    """What the published model says about one trajectory (L, C)."""
    if "fc.0.weight" in tensors:
        hidden = (
            tensors["fc.0.weight"].double().numpy() @ trajectory.reshape(-1) + tensors["fc.0.bias"].double().numpy()
        )
        last = np.maximum(hidden, 0)
    else:
        last = numpy_lstm(tensors, trajectory)[-1]
        if "lstm.weight_ih_l0_reverse" in tensors:
            backward = numpy_lstm(tensors, trajectory[::-1], "_reverse")[::-1]
            last = np.concatenate([last, backward[-1]])
    return (tensors["classifier.weight"].double().numpy() @ last + tensors["classifier.bias"].double().numpy())[0]


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [("lstm", lstm_tensors()), ("bilstm", lstm_tensors(bidirectional=True)), ("mlp", mlp_tensors())],
)
@pytest.mark.parametrize("layers", [None, L])
def test_scores_equal_an_independent_model_in_numpy(tmp_path, kind, tensors, layers):
    detector = load_reference_detector(save(tmp_path / NAME, tensors), layers=layers)
    data = torch.randn(6, L, C, generator=torch.Generator().manual_seed(1)) * 2
    expected = [numpy_score(tensors, one) for one in data.double().numpy()]
    assert (detector.kind, detector.hidden, detector.fitted, detector.training) == (kind, H, True, False)
    np.testing.assert_allclose(detector(data).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_length_is_free_until_the_layers_are_given(tmp_path):
    path = save(tmp_path / NAME, lstm_tensors())
    assert load_reference_detector(path)(torch.zeros(2, L + 3, C)).shape == (2,)
    fixed = load_reference_detector(path, layers=L)
    assert fixed.mean.shape == fixed.std.shape == (L, C)
    with pytest.raises(DataError, match=rf"shape \(N, {L}, {C}\)"):
        fixed(torch.zeros(2, L + 3, C))
    with pytest.raises(DataError, match=rf"shape \(N, L, {C}\)"):
        load_reference_detector(path)(torch.zeros(2, L, C + 1))


def test_mlp_takes_the_right_product_only(tmp_path):
    path = save(tmp_path / NAME, mlp_tensors())
    with pytest.raises(DataError, match=rf"L \* C = {L * C}"):
        load_reference_detector(path)(torch.zeros(2, L, C + 1))
    assert load_reference_detector(path, layers=L).classes == C
    with pytest.raises(CheckpointError, match="L = 3, no divisor"):
        load_reference_detector(path, layers=3)


@pytest.mark.leaves_rng_alone
def test_loading_leaves_the_global_random_state_alone(tmp_path):
    for tensors in (lstm_tensors(), mlp_tensors()):
        load_reference_detector(save(tmp_path / NAME, tensors))


def test_plain_values_beside_the_weights_are_accepted(tmp_path):
    path = save(tmp_path / NAME, lstm_tensors(), epoch=3, best_auc=np.float64(0.9), arch="lstm")
    assert load_reference_detector(path).kind == "lstm"


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    tensors = lstm_tensors()
    tensors["extra.weight"] = tensors.pop("lstm.bias_hh_l0")
    tensors["classifier.weight"] = torch.zeros(1, H + 2)
    with pytest.raises(CheckpointError) as caught:
        load_reference_detector(save(tmp_path / NAME, tensors))
    message = str(caught.value)
    assert "missing ['lstm.bias_hh_l0'], unexpected ['extra.weight']" in message
    assert f"classifier.weight: expected (1, {H}), got (1, {H + 2})" in message


def test_a_bidirectional_file_without_a_twin_names_it(tmp_path):
    tensors = lstm_tensors(bidirectional=True)
    del tensors["lstm.bias_ih_l0_reverse"]
    with pytest.raises(CheckpointError, match=r"missing \['lstm.bias_ih_l0_reverse'\]"):
        load_reference_detector(save(tmp_path / NAME, tensors))


def test_tensors_of_no_detector_are_listed(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a 2-D tensor 'fc.0.weight'.*conv1.weight"):
        load_reference_detector(save(tmp_path / NAME, {"conv1.weight": torch.zeros(2, 2)}))


@pytest.mark.parametrize(
    ("content", "found"),
    [({"model_state_dict": {}}, r"\['model_state_dict'\]"), ([1, 2], "got list"), ({"detector": 3}, r"\['detector'\]")],
)
def test_a_file_without_detector_says_what_it_holds(tmp_path, content, found):
    torch.save(content, tmp_path / NAME)
    with pytest.raises(CheckpointError, match=f"key 'detector' is a state dict, got .*{found.removeprefix('got ')}"):
        load_reference_detector(tmp_path / NAME)


class Code:
    """Pickles by reference, as code in a checkpoint would."""


def test_code_and_damaged_files_are_refused(tmp_path):
    torch.save({"detector": lstm_tensors(), "code": Code()}, tmp_path / "code.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("code", "damaged", "empty"):
        with pytest.raises(CheckpointError, match="holds something else or is damaged"):
            load_reference_detector(tmp_path / f"{name}.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        load_reference_detector(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, ("lstm", "medoid", "cosine", "targeted")),
        (
            "best_model_with_arch_mlp_method_c_dist_euclidean_criterion_ut_lr_1e-4_bs_128_ba_8_weightd_0.0.pth",
            ("mlp", "centroid", "euclidean", "untargeted"),
        ),
    ],
)
def test_names_are_read(tmp_path, name, expected):
    params, criterion = parse_reference_name(tmp_path / name)
    assert (params.kind, params.representative, params.distance, criterion) == expected
    assert (params.order, params.hidden) == ("fixed", 100)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detector.pth", "expected a file name like best_model_with_arch_"),
        (NAME.replace(".pth", ".pt"), "expected a file name like"),
        (NAME.replace("lstm", "gru"), r"one of \[lstm, bilstm, mlp\] as arch in the file name, got 'gru'"),
        (NAME.replace("method_m", "method_x"), r"one of \[m, c\] as method"),
        (NAME.replace("cosine", "l1"), r"one of \[euclidean, cosine\] as dist"),
        (NAME.replace("criterion_t", "criterion_u"), r"one of \[t, ut\] as criterion"),
    ],
)
def test_bad_names_are_refused(name, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_reference_name(name)
