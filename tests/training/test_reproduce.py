"""``memnet reproduce`` runs what a row says and judges it; the rows that ship name what there is."""

import os
from pathlib import Path

import pytest
import yaml

from memnet.training import experiment_from_config
from memnet.training.cli import MemnetCLI
from memnet.training.reproduce import Check, Row, read_rows, reproduce

ROOT = Path(__file__).parents[2]
ROWS = read_rows(ROOT / "configs/results/rows.yaml")


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_what_there_is(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    row = ROWS[name]
    assert len(set(row.seeds)) == len(row.seeds) and row.minutes > 0
    content = yaml.safe_load(Path(row.config).read_text())
    _, task = experiment_from_config({key: content[key] for key in ("model", "data")})
    for check in row.checks:
        assert check.test in task.test_names


def test_the_list(exit_code, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert exit_code("reproduce", "--list") is None
    printed = capsys.readouterr().out
    assert all(name in printed for name in ROWS) and "minutes" in printed


def test_a_row_is_trained_tested_and_judged(tiny, write, exit_code, capsys, monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})
    row = Row(write(tiny), [1, 2], 1.0, [Check("length 10", "wrong_bits", 15.0, 15.0)], ["--trainer.max_steps", "2"])

    def command(words):
        assert exit_code(*words) is None

    assert reproduce("row", row, Path("out"), command)
    printed = capsys.readouterr().out
    assert "row holds, 2 seeds" in printed
    runs = [Path(f"out/row_seed_{seed}/version_0") for seed in (1, 2)]
    for seed, run in zip((1, 2), runs, strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["seed_everything"] == config["data"]["init_args"]["seed"] == seed
        assert config["trainer"]["max_steps"] == 2 and (run / "test_0.csv").is_file()
    wrong = row._replace(seeds=[1], checks=[Check("length 10", "wrong_bits", -1.0, 0.5)])
    assert not reproduce("row", wrong, Path("out"), command)  # a second run of a seed is a version of its own
    assert "row does not hold" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no test set 'length 11' has a metric 'wrong_bits'; there are length 10"):
        reproduce("row", row._replace(seeds=[1], checks=[Check("length 11", "wrong_bits", 0, 0)]), Path("o"), command)


@pytest.mark.parametrize(
    ("better", "median", "holds"),
    [("neither", 1.2, False), ("neither", 1.05, True), ("lower", 0.1, True), ("lower", 1.2, False),
     ("higher", 5.0, True), ("higher", 0.8, False), ("higher", 0.95, True), ("lower", float("nan"), False)],
)  # fmt: skip
def test_a_median_beside_what_is_expected(better, median, holds):
    assert Check("a", "b", 1.0, 0.1, better).holds(median) == holds


def test_mistakes(write, exit_code, capsys, tmp_path):
    os.chdir(tmp_path)
    assert exit_code("reproduce", "ntm_copy") == 2
    assert "there is no configs/results/rows.yaml" in capsys.readouterr().err
    assert exit_code("reproduce", "nothing", "--rows", str(ROOT / "configs/results/rows.yaml")) == 2
    assert "there is no row nothing; there are ntm_copy" in capsys.readouterr().err
    for content, says in (("a: {config: x}", "row a must have"), ("[", "not valid YAML"), ("hello", "a mapping")):
        path = write(content, "rows")
        assert exit_code("reproduce", "a", "--rows", path) == 1
        assert says in capsys.readouterr().err
