"""What tasks on text need of the training code: metrics over whole sets, and examples typed by hand."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

import tasks
from memnet.__main__ import main
from memnet.training.runs import read_metrics
from tests.training.conftest import TINY
from tests.training.test_interrupts import STANDINS


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spelling")
    config = folder / "spelling.yaml"
    data = TINY["data"] | {"class_path": f"{STANDINS}.SpellingCopy"}
    config.write_text(yaml.safe_dump(TINY | {"data": data}))
    main(["fit", "--config", str(config), "--run_dir", str(folder)])
    return folder / "spelling" / "version_0"


def test_metrics_over_the_whole_validation_set_are_written(spelling):
    rows = [row for row in read_metrics(spelling / "metrics.csv") if "val/answers" in row]
    assert len(rows) == 2
    task = tasks.Copy(**TINY["data"]["init_args"])
    lengths = Counter(int(length) for batch in task.val_dataloader() for length in batch.lengths)
    for row in rows:
        assert row["val/answers"] == 8 and row["val/right"] == lengths[3]


def test_metrics_over_each_test_set_stand_in_its_row(spelling, exit_code, capsys):
    assert exit_code("test", "--ckpt_path", str(spelling / "checkpoints/best.ckpt")) is None
    assert "answers" in capsys.readouterr().out
    table = (spelling / "test_0.csv").read_text().splitlines()
    column = table[0].split(",").index("answers")
    assert [line.split(",")[column] for line in table[1:]] == ["2.0"] * 5


def test_predict_answers_what_was_typed(spelling, exit_code, capsys):
    checkpoint = str(spelling / "checkpoints/best.ckpt")
    assert exit_code("predict", "--ckpt_path", checkpoint, "--input", "1") is None
    printed = capsys.readouterr().out
    assert printed.count("steps,") == 1
    assert exit_code("predict", "--ckpt_path", checkpoint, "--input", "word") == 1
    assert "--input is 'word', but must be a number" in capsys.readouterr().err


def test_plot_draws_what_was_typed(spelling, exit_code, capsys, tmp_path):
    checkpoint = str(spelling / "checkpoints/best.ckpt")
    assert exit_code("plot", checkpoint, "--input", "1", "--out", str(tmp_path / "out")) is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"input_1_example.png", "input_1_weights.png"}


def test_typing_into_a_task_without_text_is_refused(trained, exit_code, capsys):
    for command in (
        ["predict", "--ckpt_path", str(trained / "checkpoints/best.ckpt")],
        ["plot", str(trained / "checkpoints/best.ckpt")],
    ):
        assert exit_code(*command, "--input", "hello") == 1
        assert "--input is 'hello', but the examples of Copy are no text" in capsys.readouterr().err


def test_the_curves_of_several_runs_in_one_picture(trained, spelling, exit_code, capsys, tmp_path):
    one, other = (str(run / "checkpoints/best.ckpt") for run in (trained, spelling))
    out = str(tmp_path / "out")
    assert exit_code("plot", one, one, "--out", out) is None
    assert [path.name for path in Path(out).iterdir()] == ["comparison.png"]
    assert exit_code("plot", one, one, "--out", out) == 1
    assert "exists and is not overwritten" in capsys.readouterr().err
    for arguments, says in [
        ([one, one], "--out is missing"),
        ([one, other, "--out", out], "is of Copy, but"),
        ([one, one, "--out", out, "--input", "1"], "drawn for one checkpoint, and 2 are given"),
    ]:
        assert exit_code("plot", *arguments) == 1
        assert says in capsys.readouterr().err
