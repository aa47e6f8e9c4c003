"""Alignment pictures: what is drawn where, and text in any script."""

import warnings

import numpy as np
import pytest

from memnet.training import alignment
from memnet.training.alignment import draw_alignment, fonts_for


def maps(figure):
    return [
        axis for axis in figure.axes if axis.get_images() and axis.get_visible() and axis.get_label() != "<colorbar>"
    ]


def test_weights_stand_at_their_symbols():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (1, 3)).astype(np.float32)
    figure = draw_alignment({"attention": weights}, list("a b1"), ["x", "y", "</s>"], "title")
    (axis,) = maps(figure)
    assert np.array_equal(axis.get_images()[0].get_array(), weights[0])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "␣", "b", "1"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x", "y", "</s>"]
    assert axis.get_images()[0].get_clim() == (0, 1)
    figure.draw_without_rendering()
    top, bottom = (axis.get_window_extent().y1, axis.get_yticklabels()[0].get_window_extent().y1)
    assert axis.get_xticklabels()[0].get_window_extent().y0 >= top > bottom  # source above, first output at the top


def test_every_head_has_its_own_map():
    weights = {"layers.0": np.random.rand(4, 2, 5), "layers.1": np.random.rand(1, 2, 5)}
    axes = maps(draw_alignment(weights, list("abcde"), ["one", "two"], "title"))
    assert [axis.get_title() for axis in axes] == [*(f"layers.0, head {head}" for head in (1, 2, 3, 4)), "layers.1"]
    assert np.array_equal(axes[2].get_images()[0].get_array(), weights["layers.0"][2])


def test_long_words_stand_on_end_and_a_dollar_is_no_formula():
    figure = draw_alignment({"a": np.ones((1, 1, 2)) / 2}, ["Wörter", "$5$"], ["x"], "title")
    labels = maps(figure)[0].get_xticklabels()
    assert [label.get_rotation() for label in labels] == [90, 90]
    figure.draw_without_rendering()


def test_symbols_that_the_default_font_lacks_come_from_another(monkeypatch):
    default, other = frozenset("ab"), frozenset("日本")
    files = {"default.ttf": default, "other.ttf": other, "none.ttf": frozenset("z")}
    monkeypatch.setattr(alignment, "_symbols", files.__getitem__)
    monkeypatch.setattr(alignment.font_manager, "findfont", lambda family: "default.ttf")
    monkeypatch.setattr(alignment, "_installed", lambda: [("None", "none.ttf"), ("Other", "other.ttf")])
    assert fonts_for("a b") == [alignment._DEFAULT_FONT]
    assert fonts_for("a日本") == [alignment._DEFAULT_FONT, "Other"]
    with pytest.warns(UserWarning, match="no installed font has 語"):
        assert fonts_for("日語") == [alignment._DEFAULT_FONT, "Other"]


def test_scripts_that_come_with_matplotlib_need_no_other_font():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_alignment({"a": np.eye(3)[None]}, list("дом"), list("βία"), "Häuser")
        figure.draw_without_rendering()
