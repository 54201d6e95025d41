from __future__ import annotations

import pickle

import foolbox
import pytest

from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.algorithms.attacks.registry import attack_names, attacks_on_features
from adv_detect.errors import ConfigurationError
from adv_detect.params import AttackParams


def _build(attack, **params):
    return build_attack("mine", AttackParams(attack=attack, **params))


def test_names():
    assert attack_names() == ("bim", "cw", "deep-features", "deepfool", "fgsm", "mi-fgsm", "minimal-norm", "pgd")


@pytest.mark.parametrize(
    ("attack", "norm", "expected"),
    [
        ("bim", None, foolbox.attacks.LinfBasicIterativeAttack),
        ("bim", "l2", foolbox.attacks.L2BasicIterativeAttack),
        ("pgd", "linf", foolbox.attacks.LinfProjectedGradientDescentAttack),
        ("pgd", "l2", foolbox.attacks.L2ProjectedGradientDescentAttack),
        ("mi-fgsm", None, foolbox.attacks.LinfMomentumIterativeFastGradientMethod),
        ("fgsm", None, foolbox.attacks.LinfFastGradientAttack),
        ("foolbox.attacks.LinfAdamBasicIterativeAttack", None, foolbox.attacks.LinfAdamBasicIterativeAttack),
    ],
)
def test_gradient_attacks(attack, norm, expected):
    built = _build(attack, norm=norm, epsilon="8/255")
    assert type(built.instance) is expected
    assert built.runner == "gradient"
    assert built.norm == (norm or "linf")
    assert built.epsilon == built.epsilon_bound((0, 1)) == pytest.approx(8 / 255)


def test_default_step_is_twice_epsilon_over_steps():
    assert (_build("bim", epsilon=0.3).instance.steps, _build("bim", epsilon=0.3).instance.rel_stepsize) == (10, 0.2)
    assert _build("pgd", epsilon=0.3, arguments={"steps": 40}).instance.rel_stepsize == pytest.approx(0.05)
    assert _build("pgd", epsilon=0.3, arguments={"steps": 40, "rel_stepsize": 0.1}).instance.rel_stepsize == 0.1
    given = _build("bim", epsilon=0.3, arguments={"abs_stepsize": "2/255"}).instance
    assert given.abs_stepsize == pytest.approx(2 / 255)


def test_numbers_may_be_texts():
    built = _build("cw", arguments={"stepsize": "1e-2", "steps": "20", "initial_const": "1/100", "confidence": 2})
    assert (built.instance.stepsize, built.instance.steps, built.instance.initial_const) == (0.01, 20, 0.01)


def test_minimisation_attacks_need_no_epsilon():
    assert _build("cw").epsilon_bound((0, 1)) is None
    assert _build("cw").norm == "l2"
    assert _build("deepfool", norm="linf").norm == "linf"
    assert _build("foolbox.attacks.L2DeepFoolAttack").runner == "foolbox"


def test_attacks_of_any_norm_take_the_configured_one():
    built = _build("foolbox.attacks.GaussianBlurAttack", norm="l2")
    assert built.norm == "l2"
    with pytest.raises(ConfigurationError, match=r"attacks\.mine\.norm: .* needs one of \[l1, l2, linf\], got none"):
        _build("foolbox.attacks.GaussianBlurAttack")


def test_deep_features():
    built = _build("deep-features", arguments={"max_thres": "10", "iterations": 5})
    assert (built.runner, built.norm, built.epsilon) == ("deep_features", "linf", None)
    assert built.epsilon_bound((0, 1)) == pytest.approx(10 / 255)
    assert built.epsilon_bound((0, 255)) == pytest.approx(10)


def test_a_built_attack_can_be_sent_to_a_worker():
    built = pickle.loads(pickle.dumps(_build("mi-fgsm", epsilon=0.1)))
    assert built.instance.momentum == 1.0


@pytest.mark.parametrize(
    ("attack", "params", "message"),
    [
        ("bmi", {}, r"attacks\.mine\.attack: expected one of \[<dotted.*bim, cw.*got 'bmi'"),
        (
            "foolbox.attacks.Nothing",
            {},
            r"attacks\.mine\.attack: 'foolbox\.attacks' has no 'Nothing': .*got 'foolbox\.attacks\.Nothing'",
        ),
        (
            "no.such.module",
            {},
            r"attacks\.mine\.attack: cannot import module 'no\.such' of 'no\.such\.module'.*bim, cw",
        ),
        ("foolbox.attacks.base.Attack", {}, "expected a concrete subclass"),
        ("pathlib.Path", {}, r"expected a concrete subclass of foolbox\.attacks\.Attack, got 'pathlib\.Path'"),
        ("bim", {}, r"attacks\.mine\.epsilon: bim needs the size .*'8/255', got none"),
        ("bim", {"epsilon": 1, "norm": "l1"}, r"attacks\.mine\.norm: expected one of \[l2, linf\], got 'l1'"),
        ("cw", {"norm": "linf"}, r"attacks\.mine\.norm: expected one of \[l2\], got 'linf'"),
        (
            "foolbox.attacks.LinfDeepFoolAttack",
            {"norm": "l2"},
            r"attacks\.mine\.norm: foolbox\.attacks\.LinfDeepFoolAttack works in linf, got 'l2'",
        ),
        (
            "bim",
            {"epsilon": 1, "arguments": {"step": 3}},
            r"attacks\.mine\.arguments: expected names of \[rel_stepsize, abs_stepsize, steps, random_start\], "
            r"got 'step' \(did you mean 'steps'\?\)",
        ),
        ("cw", {"arguments": {"zzz": 3}}, r"expected names of \[binary_search_steps, .*got 'zzz'$"),
        ("bim", {"epsilon": 1, "arguments": {"steps": 0}}, r"arguments\.steps: expected more than 0, got 0"),
        ("bim", {"epsilon": 1, "arguments": {"steps": 2.5}}, r"arguments\.steps: expected a whole number, got 2\.5"),
        ("bim", {"epsilon": 1, "arguments": {"steps": True}}, r"arguments\.steps: expected a whole number, got True"),
        ("bim", {"epsilon": 1, "arguments": {"random_start": 1}}, "random_start: expected true or false, got 1"),
        ("bim", {"epsilon": 1, "arguments": {"abs_stepsize": "x/3"}}, "abs_stepsize: expected a number, got 'x/3'"),
        ("cw", {"arguments": {"stepsize": "1/0"}}, "stepsize: expected a number, got '1/0'"),
        ("mi-fgsm", {"epsilon": 1, "arguments": {"momentum": -1}}, "momentum: expected 0 or more, got -1"),
        (
            "foolbox.attacks.VirtualAdversarialAttack",
            {"epsilon": 1},
            r"attacks\.mine\.arguments: expected values for \['steps'\]",
        ),
        (
            "foolbox.attacks.SparseL1DescentAttack",
            {"epsilon": 1, "arguments": {"quantile": 2.0}},
            r"attacks\.mine\.arguments: SparseL1DescentAttack refuses .*quantile",
        ),
        ("deep-features", {"norm": "l2"}, r"attacks\.mine\.norm: expected one of \[linf\], got 'l2'"),
        ("deep-features", {"epsilon": 3}, r"attacks\.mine\.epsilon: expected none, .*max_thres.*got 3"),
        ("deep-features", {"arguments": {"max_tres": 3}}, r"attacks\.mine: .*max_tres.*max_thres"),
    ],
)
def test_errors_name_key_value_and_choices(attack, params, message):
    with pytest.raises(ConfigurationError, match=message):
        _build(attack, **params)


class OnFeatures(foolbox.attacks.LinfPGD):
    on_features = True


def test_attacks_on_features_say_so_whether_registered_or_of_ones_own():
    path = f"{__name__}.OnFeatures"
    attacks = {name: AttackParams(attack=name, epsilon=0.1) for name in ("bim", "deep-features", path)}
    attacks["plain"] = AttackParams(attack="foolbox.attacks.LinfPGD", epsilon=0.1)
    assert attacks_on_features(attacks) == ("deep-features", path)
