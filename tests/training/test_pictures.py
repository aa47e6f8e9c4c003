"""The figures, and ``memnet plot``."""

from pathlib import Path

import numpy as np
import pytest

from memnet.training import pictures
from memnet.training.pictures import draw_example, draw_learning_curve, draw_weights

PANELS = {
    "input": np.eye(4, 6, dtype=np.float32) - np.eye(4, 6, 1, dtype=np.float32) / 2,
    "target": np.eye(3, 6, dtype=np.float32),
    "output": np.eye(3, 6, dtype=np.float32) * 0.9,
    "error": np.eye(3, 6, dtype=np.float32) * 0.1,
}


def images(figure):
    return [image for axis in figure.axes for image in axis.get_images() if axis.get_label() != "<colorbar>"]


def test_an_example_is_shown_as_it_is():
    figure = draw_example(PANELS, "title")
    shown = images(figure)
    assert all(np.array_equal(image.get_array(), panel) for image, panel in zip(shown, PANELS.values(), strict=True))
    assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes[:4]] == list(PANELS)
    assert figure.axes[3].get_xlabel() == "time step"
    assert [image.get_clim() for image in shown] == [(-1, 1), (0, 1), (0, 1), (0, 1)]


def one_hot(slots, num_slots, num_heads=1):
    return np.eye(num_slots, dtype=np.float32)[np.array(slots)][:, None].repeat(num_heads, 1)


def test_weights_are_cut_to_the_locations_in_use():
    weights = {
        "cell.write_addressing": one_hot([40, 41, 42, 43, 43, 43], 128, 2),
        "cell.write_addressing.content": one_hot([0] * 6, 128, 2),  # inside the other: not shown
        "cell.read_addressing": one_hot([40, 40, 40, 41, 42, 43], 128),
    }
    figure = draw_weights(PANELS, weights, "title")
    shown = [image for image in images(figure) if image.get_cmap().name == "magma"]
    assert len(shown) == 3
    written, read = [40, 41, 42, 43, 43, 43], [40, 40, 40, 41, 42, 43]
    for image, slots in zip(shown, [written, read, written], strict=True):  # row by row, writing on the left
        left, right, bottom, top = image.get_extent()
        assert (left, right, bottom, top) == (-0.5, 5.5, 37.5, 45.5)
        rows = image.get_array().argmax(0)
        assert [38 + int(row) for row in rows] == slots
    titles = [axis.get_title() for axis in figure.axes if axis.get_title() and axis.get_visible()]
    assert titles == ["write weights, head 1", "read weights", "write weights, head 2"]


def test_weights_that_are_all_over_the_place_are_shown_whole():
    weights = {"read_addressing": one_hot([0, 30, 60, 90, 120, 127], 128)}
    (_, image) = images(draw_weights(PANELS, weights, "title"))
    assert image.get_array().shape == (128, 6)


def test_the_learning_curve_is_what_was_written():
    rows = [
        {"step": 1.0, "sequences": 1000.0, "train/bits": 9.0},
        {"step": 1.0, "sequences": 1000.0, "val/bits": 8.0},
        {"step": 2.0, "sequences": 2000.0, "train/bits": 3.0},
    ]
    figure = draw_learning_curve(rows, "bits", "bits per sequence", "title", threshold=0.5)
    train, val, solved = figure.axes[0].get_lines()
    assert train.get_xydata().tolist() == [[1, 9], [2, 3]] and val.get_xydata().tolist() == [[1, 8]]
    assert set(solved.get_ydata()) == {0.5}
    assert draw_learning_curve([], "bits", "bits per sequence", "title") is None


def test_plot_draws_every_rung_and_overwrites_nothing_of_others(trained, exit_code, tmp_path, capsys):
    checkpoint = str(trained / "checkpoints/last.ckpt")
    out = tmp_path / "out"
    assert exit_code("plot", checkpoint, "--out", str(out)) is None
    rungs = [f"length_{length}" for length in (10, 20, 30, 50, 120)]
    expected = {f"{kind}_{rung}.png" for kind in ("example", "weights") for rung in rungs} | {"learning_curve.png"}
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert written.keys() == expected
    assert capsys.readouterr().out.count("written to") == len(expected)

    assert exit_code("plot", checkpoint, "--out", str(out)) == 1
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == written

    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(Path(checkpoint).read_bytes())
    assert exit_code("plot", str(moved)) == 1
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["plot"], ["plot", "a", "--nothing"]])
def test_plot_with_arguments_it_does_not_understand(exit_code, arguments):
    assert exit_code(*arguments) == 2


@pytest.mark.parametrize(
    ("used", "span"),
    [
        ([3, 4, 5], (1, 7)),
        ([62, 63, 0, 1], (60, 67)),  # over the end of the circle: 64 is slot 0 again
        ([0], (-2, 2)),
        ([], (0, 63)),
        ([0, 32], (0, 63)),  # half the memory or more: all of it
    ],
)
def test_the_slots_shown_are_the_used_ones_around_the_circle(used, span):
    weights = np.zeros((4, 1, 64))
    weights[:, :, used] = 0.5
    assert pictures._used_slots([weights]) == span


def test_a_comparison_shows_each_runs_validation_by_epoch():
    runs = {
        "one": [
            {"step": 1.0, "sequences": 50.0, "val/exact": 0.25},
            {"step": 2.0, "sequences": 100.0, "val/exact": 0.5},
        ],
        "other": [{"step": 1.0, "sequences": 100.0, "val/exact": 1.0, "train/exact": 0.0}],
        "empty": [{"step": 1.0, "sequences": 50.0, "train/exact": 0.0}],
    }
    figure = pictures.draw_comparison(runs, "exact", "exact answers", epoch_size=50)
    one, other = figure.axes[0].get_lines()
    assert one.get_xydata().tolist() == [[1, 0.25], [2, 0.5]] and other.get_xydata().tolist() == [[2, 1.0]]
    assert [line.get_label() for line in (one, other)] == ["one", "other"]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epochs", "exact answers")
    assert pictures.draw_comparison({"empty": runs["empty"]}, "exact", "exact answers") is None
