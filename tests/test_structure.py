import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sharing import LONGEST

import adv_detect

SOURCE = Path(adv_detect.__file__).parent
TESTS = Path(__file__).parent
TESTED_WITH_THEIR_NODES = {Path("pipelines/reporting")}  # tests/reporting
PACKAGES = sorted(found.parent.relative_to(SOURCE) for found in SOURCE.rglob("__init__.py"))


@pytest.mark.parametrize("package", [one for one in PACKAGES if one not in TESTED_WITH_THEIR_NODES], ids=str)
def test_each_package_has_its_tests_in_the_folder_of_the_same_path(package):
    assert list((TESTS / package).glob("test_*.py")), f"no test of adv_detect/{package} in tests/{package}"


RIDDLES = re.compile(r"(What|Things|How|Whether|Who|Whose|Where|When|Which|Why)\b")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def first_lines(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text.splitlines()[0]


def riddles(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in first_lines(ast.parse(source)) if RIDDLES.match(text)]


def test_riddles_are_found():
    assert riddles('"""What this holds."""\n\ndef ready():\n    """Whether it is."""') == [
        (1, "What this holds."),
        (3, "Whether it is."),
    ]
    assert not riddles('"""Whatever is Whether."""\n\ndef ready():\n    """Tell whether it is."""')


def test_docstrings_begin_with_a_noun_phrase_or_an_imperative():
    found = {
        f"{file.relative_to(SOURCE)}:{line}": text
        for file in sorted(SOURCE.rglob("*.py"))
        for line, text in riddles(file.read_text(encoding="utf-8"))
    }
    assert not found, f"write what it is (a noun phrase) or what it does (an imperative): {found}"


@pytest.mark.parametrize("name", LONGEST)
def test_a_file_that_is_to_start_first_is_there(name):
    assert (TESTS / name).is_file()


LONGEST_MODULE = 300
HOUSE_WORDS = {"about", "front", "marks", "scene"}
"""Names of no meaning in the field: say what it is (metadata, state, fingerprint, setting)."""


def identifiers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            yield node.target.attr


def house_words(source: str) -> set[str]:
    words = {word for name in identifiers(ast.parse(source)) for word in re.findall(r"[A-Z]?[a-z]+", name)}
    return {word.lower() for word in words} & HOUSE_WORDS


def test_house_words_are_found():
    assert house_words("class Scene: ...\ndef shared_marks(front): about = front") == HOUSE_WORDS
    assert not house_words("'the marks of a scene'\nfronts = remarks")


def test_modules_are_short_and_use_words_of_the_field():
    sources = {file.relative_to(SOURCE): file.read_text(encoding="utf-8") for file in sorted(SOURCE.rglob("*.py"))}
    long = {str(file): text.count("\n") for file, text in sources.items() if text.count("\n") > LONGEST_MODULE}
    assert not long, f"split by responsibility: {long}"
    named = {str(file): found for file, text in sources.items() if (found := house_words(text))}
    assert not named
