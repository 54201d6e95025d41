from pathlib import Path

import pytest

import adv_detect

SOURCE = Path(adv_detect.__file__).parent
TESTS = Path(__file__).parent
TESTED_WITH_THEIR_NODES = {Path("pipelines/reporting")}  # tests/reporting
PACKAGES = sorted(found.parent.relative_to(SOURCE) for found in SOURCE.rglob("__init__.py"))


@pytest.mark.parametrize("package", [one for one in PACKAGES if one not in TESTED_WITH_THEIR_NODES], ids=str)
def test_each_package_has_its_tests_in_the_folder_of_the_same_path(package):
    assert list((TESTS / package).glob("test_*.py")), f"no test of adv_detect/{package} in tests/{package}"
