"""Pictures and section of adaptive attacks, from figures and tables made by hand."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as MatplotlibFigure

from adv_detect.pipelines.adaptive_attack.figures import SHOWN, show_adaptive, write_adaptive_part
from adv_detect.pipelines.adaptive_attack.tables import TABLES
from adv_detect.reporting import Note, detectors_identity
from adv_detect.reporting.adaptive import TITLE
from adv_detect.sharding import ShardStore


def test_the_first_figure_of_a_kind_is_shown_by_itself():
    figures = {name: MatplotlibFigure(figsize=(1 + number, 1)) for number, name in enumerate(("curves", "scores/a"))}

    pictures, *shown = show_adaptive({f"adaptive_{name}": figure for name, figure in figures.items()})

    assert list(pictures) == ["adaptive_curves", "adaptive_scores/a"]
    assert (shown[SHOWN.index("adaptive_curves")], shown[SHOWN.index("adaptive_scores")]) == tuple(pictures.values())
    assert shown[SHOWN.index("adaptive_grid")] not in pictures.values()
    assert all(picture.startswith(b"\x89PNG") for picture in shown)


def test_without_results_the_section_says_what_was_not_measured(tmp_path):
    summary = pd.DataFrame({"detector": ["a"], "validation_macro_auc": [0.9]})
    nothing = ShardStore(str(tmp_path / "none"))

    part = write_adaptive_part({name: pd.DataFrame() for name in TABLES}, {}, nothing, nothing, summary)

    (section,) = part.report.sections
    assert (section.title, part.made_from) == (TITLE, detectors_identity(summary))
    notes = [block.text for block in section.blocks if isinstance(block, Note)]
    for words in (
        "published form was not measured",
        "No detector was trained on adaptive",
        "No transfer attack was run",
    ):
        assert sum(words in note for note in notes) == 1
