from __future__ import annotations

import pytest

from adv_detect.plots import style


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 3)])
def test_panels_fill_rows_and_leave_the_rest_empty(count, rows, columns):
    figure, panels = style.new_panels(count, columns=3, panel=(2.0, 1.5), margin=(0.4, 0.6), sharex=True)

    assert tuple(figure.get_size_inches()) == (2.0 * columns + 0.4, 1.5 * rows + 0.6)
    assert len(figure.axes) == rows * columns
    assert [axes for axes in figure.axes if axes.get_visible()] == panels == figure.axes[:count]
    panels[0].set(xlim=(0, 7), ylim=(0, 5))
    assert {(axes.get_xlim(), axes.get_ylim()) for axes in panels} == {((0, 7), (0, 5))}
