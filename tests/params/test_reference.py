"""The page of parameters: current, and each parameter explained once."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from adv_detect.fields import Block, PositiveNumber
from adv_detect.params import BLOCKS
from adv_detect.params.reference import PAGE, comments, field_docstrings, parameters, render, words


class _Step(Block):
    """One step."""

    length: PositiveNumber = 0.5
    """Of the step, in
    pixels.
    """


class _LongStep(_Step):
    """A long step."""

    kind: Literal["up", "down"] = "up"
    times: int | None = Field(None, ge=1, le=9)
    names: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)
    by_norm: dict[Literal["l2", "linf"], float] = Field(default_factory=dict)
    step: _Step | None = None


def test_the_page_is_current(project):
    assert (project / PAGE).read_text(encoding="utf-8") == render(project / "conf/base"), "run `make parameters`"


@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_is_explained_once(project, block):
    wrong = {one.name: one.meanings for one in parameters(block, project / "conf/base") if len(one.meanings) != 1}

    assert not wrong, (
        "expected one explanation of each parameter, as a comment at its value in conf/base or, where it has no line "
        "there, as a docstring below the field"
    )


def test_every_field_of_every_block_is_listed(project):
    names = {one.name for block in BLOCKS for one in parameters(block, project / "conf/base")}

    assert {f"{block}.{field}" for block, params in BLOCKS.items() for field in params.model_fields} <= names
    assert {
        "runtime.ray.num_cpus",
        "adversarial_generation.attacks.<name>.epsilon",
        "network.preprocessing.mean",
    } <= names
    assert "adaptive_attack.substitute.network.name" not in names  # described under network


def test_a_parameter_has_the_value_of_the_file_and_the_bounds_of_its_field(project):
    found = {one.name: one for one in parameters("twin_training", project / "conf/base")}

    assert (found["twin_training.epsilon"].values, found["twin_training.epsilon"].default) == ("number > 0", "`0.3`")
    assert found["twin_training.epochs"].values == "integer ≥ 0, ≤ 100,000"
    assert found["twin_training.batch_size"].default == "`128`"  # of the file; the field says 64
    assert found["twin_training.network.preprocessing"].values == "keys as of `network.preprocessing` or `null`"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("length", "number > 0"),
        ("kind", "`up`, `down`"),
        ("times", "integer ≥ 1, ≤ 9 or `null`"),
        ("names", "list, at least one: text"),
        ("by_norm", "by `l2`, `linf`: number"),
        ("step", "keys below or `null`"),
    ],
)
def test_values_in_words(field, text):
    assert words(_LongStep.model_json_schema()["properties"][field]) == text


def test_docstrings_of_fields_are_inherited():
    assert field_docstrings(_LongStep) == {"length": "Of the step, in pixels"}


def test_comments_belong_to_the_key_of_their_line_or_of_the_next():
    text = """\
# Of the whole.
block:
  a: 1      # first
            # and more of it
  b: '#2'
  # of c,
  # in two lines
  c:
    d: [1]  # inside
  # left alone

  e: 3
"""
    assert comments(text) == {
        ("block",): "Of the whole.",
        ("block", "a"): "first and more of it",
        ("block", "c"): "of c, in two lines",
        ("block", "c", "d"): "inside",
    }
