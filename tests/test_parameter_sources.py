"""Where parameters come from."""

from __future__ import annotations

from adv_detect.parameter_sources import all_parameters, further_parameters, own_attacks
from adv_detect.params import BLOCKS
from adv_detect.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
from adv_detect.validation.blocks import check_parameters


def loader(folder, env, **runtime):
    return CONFIG_LOADER_CLASS(conf_source=str(folder), env=env, runtime_params=runtime, **CONFIG_LOADER_ARGS)


def test_what_an_environment_states_itself_is_told_from_the_base(tmp_path):
    for name, text in (
        (
            "base/parameters.yml",
            "adversarial_generation: {attacks: {bim: {attack: bim, epsilon: 0.3}, pgd: {epsilon: 1}}}",
        ),
        ("mine/parameters.yml", "adversarial_generation: {attacks: {pgd: {epsilon: 8/255}, cw: null}}"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    runtime = {"adversarial_generation": {"attacks": {"bim": {"arguments": {"steps": 3}}, "pgd": {"norm": "linf"}}}}

    assert own_attacks(loader(tmp_path, "mine")) == {"pgd": {"epsilon": "8/255"}}
    assert own_attacks(loader(tmp_path, "mine", **runtime)) == {
        "pgd": {"epsilon": "8/255", "norm": "linf"},
        "bim": {"arguments": {"steps": 3}},
    }
    assert own_attacks(loader(tmp_path, "base"))["bim"] == {"attack": "bim", "epsilon": 0.3}


def test_every_environment_of_the_project_passes(project):
    for folder in (project / "conf").iterdir():
        if folder.is_dir() and folder.name != "base":
            read = loader(project / "conf", folder.name)
            parameters = all_parameters(read)

            check_parameters(parameters, further=further_parameters(read, parameters))
            assert set(parameters) == set(BLOCKS)


def test_values_that_the_catalog_takes_from_the_command_line_are_known(project):
    read = loader(project / "conf", "lfw", faces={"max_classes": 8, "max_images": 96})
    parameters = all_parameters(read)

    assert "faces" in parameters
    assert {"faces.max_classes", "faces.max_images"} <= further_parameters(read, parameters)
    check_parameters(parameters, further=further_parameters(read, parameters))
