"""``memnet bench``: what it takes, prints, writes and refuses. The benchmarks here are made up."""

import json
import os

import pytest
import torch

import memnet
from memnet.bench import Settings, benchmarks, machine, pictures, report
from memnet.bench.measuring import Comparison, Row

TWO_WAYS = '''
"""Something done in two ways."""
from memnet.bench.measuring import Comparison, Way, compare

def run(settings):
    ways = [Way("slow way", lambda: None), Way("fast way", lambda: None)]
    yield Comparison("first work", compare("first work", ways, settings.seconds).rows, notes=("a note",))
    yield Comparison("threads", (), notes=(f"{settings.threads} on {settings.device}",))
'''

BROKEN_OFF = '''
"""Ends before its time."""
from memnet.bench.measuring import Comparison, Row

def run(settings):
    yield Comparison("what there was", (Row("only way", (2.0, 3.0, 4.0)),))
    raise {}
'''


@pytest.fixture
def two_ways(folder):
    (folder / "two_ways.py").write_text(TWO_WAYS)
    return folder


def test_a_benchmark_is_one_new_file(two_ways, exit_code, capsys):
    assert exit_code("two-ways", "--seconds", "0.001", "--device", "cpu", "--threads", "3") is None
    printed = capsys.readouterr()
    assert all(
        text in printed.out for text in ("two-ways", "first work", "slow way", "fast way", "times less", "a note")
    )
    assert "3 on cpu" in printed.out
    assert "measuring two-ways" in printed.err
    assert "times floor" not in printed.out  # there is none
    assert exit_code("--help") == 0
    assert "two-ways  Something done in two ways." in capsys.readouterr().out


def test_without_a_name_all_are_measured_and_none_twice(two_ways, exit_code, here, capsys):
    (two_ways / "another.py").write_text(TWO_WAYS)
    assert exit_code("--seconds", "0.001", "--json", "all.json") is None
    assert list(json.loads((here / "all.json").read_text())["benchmarks"]) == ["another", "two-ways"]
    assert exit_code("two-ways", "two-ways", "--seconds", "0.001") is None
    assert capsys.readouterr().err.count("measuring two-ways") == 2


def test_json_holds_everything_that_was_measured(two_ways, exit_code, here, capsys):
    assert exit_code("two-ways", "--seconds", "0.1", "--json", "out.json") is None
    assert capsys.readouterr().out.endswith("written to out.json\n")
    content = json.loads((here / "out.json").read_text())
    assert [path.name for path in here.iterdir()] == ["out.json"]
    assert content["complete"] is True
    assert content["machine"].keys() >= {"processor", "cores", "threads", "torch", "date", "commit", "device", "load"}
    assert content["machine"]["torch"] == torch.__version__ and content["machine"]["memnet"] == memnet.__version__
    first, second = content["benchmarks"]["two-ways"]
    assert (first["work"], first["unit"], first["notes"]) == ("first work", "s", ["a note"])
    slow, fast = first["rows"]
    assert (slow["way"], fast["way"]) == ("slow way", "fast way")
    assert len(slow["samples"]) == len(fast["samples"]) >= 3
    assert fast["times_less"] == pytest.approx(slow["median"] / fast["median"])
    assert min(fast["samples"]) <= fast["quartiles"][0] <= fast["median"] <= fast["quartiles"][1]
    assert second["notes"] == [f"None on {Settings(device=torch.device(content['machine']['device'])).device}"]


GROWING = """
\'\'\'Takes longer the larger it is.\'\'\'
from memnet.bench.measuring import Comparison, Row

def run(settings):
    for size in (10, 100, 1_000):
        rows = (Row("dense", (1e-3 * size,)), *([Row("sparse", (2e-3,))] if size < 1_000 else []))
        yield Comparison(f"{size:,} slots, time of a step", rows)
        yield Comparison(f"{size:,} slots, memory", (Row("dense", (2.0**20 * size,)),), "B")
    yield Comparison("no size", (Row("dense", (1.0,)),))
"""


def test_how_it_grows_is_drawn(folder, exit_code, here, capsys):
    (folder / "growing.py").write_text(GROWING)
    assert exit_code("growing", "--plot", "growth.png") is None
    assert capsys.readouterr().out.endswith("drawn in growth.png\n")
    assert (here / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert exit_code("growing", "--plot", "growth.png") == 1
    assert "--plot is growth.png, which exists and is not overwritten" in capsys.readouterr().err


def test_a_panel_is_for_works_that_differ_in_size_only(folder):
    (folder / "growing.py").write_text(GROWING)
    comparisons = list(benchmarks.load("growing").run(Settings()))
    figure = pictures.draw({"growing": comparisons, "single": comparisons[:1]})
    time, memory = figure.axes
    assert (time.get_title(), memory.get_title()) == ("growing: time of a step", "growing: memory")
    assert time.get_xlabel() == "slots" and (time.get_xscale(), time.get_yscale()) == ("log", "log")
    curves = {line.get_label(): line.get_xydata().tolist() for line in time.lines}
    assert curves == {
        "dense": [[10, pytest.approx(0.01)], [100, pytest.approx(0.1)], [1000, pytest.approx(1.0)]],
        "sparse": [[10, 0.002], [100, 0.002]],
    }
    assert time.yaxis.get_major_formatter()(0.01) == "10 ms"
    assert memory.yaxis.get_major_formatter()(2.0**20) == "1 MiB"


def test_where_nothing_grows_nothing_is_drawn(two_ways, exit_code, here, capsys):
    assert exit_code("two-ways", "--seconds", "0.001", "--plot", "growth.png") is None
    assert "nothing is drawn: no two works differ in size only" in capsys.readouterr().out
    assert not list(here.iterdir())


def test_nothing_is_overwritten(two_ways, exit_code, here, capsys):
    (here / "old.json").write_text("kept")
    assert exit_code("two-ways", "--json", "old.json") == 1
    printed = capsys.readouterr()
    assert printed.err == "memnet: --json is old.json, which exists and is not overwritten; give another name.\n"
    assert printed.out == ""  # it says so before it measures
    assert (here / "old.json").read_text() == "kept"


def test_a_file_that_appears_meanwhile_is_left_alone(folder, exit_code, here, capsys):
    broken = BROKEN_OFF.replace("raise {}", "open('new.json', 'w').write('somebody else')")
    (folder / "meanwhile.py").write_text(broken)
    assert exit_code("meanwhile", "--json", "new.json") == 1
    printed = capsys.readouterr()
    assert "exists and is not overwritten" in printed.err and "what there was" in printed.out
    assert {path.name: path.read_text() for path in here.iterdir()} == {"new.json": "somebody else"}


def test_a_folder_that_is_not_there_is_noticed_beforehand(two_ways, exit_code, here, capsys):
    assert exit_code("two-ways", "--json", "nowhere/out.json") == 1
    printed = capsys.readouterr()
    assert printed.err == "memnet: --json is nowhere/out.json, but nowhere is no folder that can be written.\n"
    assert printed.out == ""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [("KeyboardInterrupt", 130, "interrupted"), ("ValueError('a way is wrong.')", 1, "a way is wrong.")],
)
def test_what_it_had_is_printed_and_written(folder, exit_code, here, capsys, error, code, says):
    (folder / "broken_off.py").write_text(BROKEN_OFF.format(error))
    (folder / "never_reached.py").write_text(TWO_WAYS)
    assert exit_code("broken-off", "never-reached", "--json", "part.json") == code
    printed = capsys.readouterr()
    assert "what there was" in printed.out and "3 s" in printed.out and "2.5 s - 3.5 s" in printed.out
    assert printed.err.splitlines()[-1].startswith("memnet: ") and says in printed.err
    content = json.loads((here / "part.json").read_text())
    assert content["complete"] is False
    assert [each["work"] for each in content["benchmarks"]["broken-off"]] == ["what there was"]
    assert "never-reached" not in content["benchmarks"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["two-way"], "there is no benchmark two-way; did you mean two-ways?"),
        (["xyz"], "there is no benchmark xyz; it must be one of two-ways."),
        (["--threads", "0"], "--threads: 0 is not a positive number"),
        (["--threads", "1.5"], "--threads: 1.5 is not a positive number"),
        (["--seconds", "-1"], "--seconds: -1 is not a positive number"),
        (["--seconds", "nan"], "--seconds: nan is not a positive number"),
        (["--seconds", "inf"], "--seconds: inf is not a positive number"),
        (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["--jsn", "x"], "unrecognized arguments: --jsn"),
    ],
)
def test_what_is_not_understood_gets_one_sentence(two_ways, exit_code, here, capsys, arguments, says):
    assert exit_code(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and says in printed.err
    assert printed.err.startswith("memnet: ") and printed.err.count("\n") == 1


def test_a_gpu_that_is_not_there_is_refused(two_ways, exit_code, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert exit_code("--device", "cuda") == 2
    assert capsys.readouterr().err == "memnet: --device is cuda, but torch finds no GPU here; use --device cpu.\n"


def test_help_fits_eighty_columns_and_names_every_benchmark(exit_code, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code("--help") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert benchmarks.names() == [
        *("babi", "date", "dnc", "entity", "fit", "generic", "ntm", "ntm-slots", "safeguards", "sam", "startup"),
        "unroll-memory",
    ]
    for name in benchmarks.names():
        assert f"  {name} " in printed and len(benchmarks.summary(name)) > 20


def test_threads_are_torch_s_within_the_block_only(settings):
    before = torch.get_num_threads()
    with Settings(threads=before + 1).with_threads(usual=1) as number:
        assert number == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with Settings().with_threads(usual=10**6) as number:
        assert number == len(os.sched_getaffinity(0))
    with pytest.raises(ZeroDivisionError), Settings(threads=before + 1).with_threads():
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_units_and_ratios_read_well(capsys):
    rows = (Row("a", (0.0125,), times_less=12.345), Row("b", (3e-6, 4e-6, 5e-6), extra={"GB/s": 1234.5}))
    sizes = (Row("c", (3 * 2.0**20,)), Row("d", (2048.0,)), Row("e", (0.0,)))
    works = [Comparison("time", rows), Comparison("space", sizes, "B"), Comparison("number", (Row("f", (0.517,)),), "")]
    report.print_comparisons("name", works)
    cells = [[cell.strip() for cell in line.split("│")[2:]] for line in capsys.readouterr().out.splitlines()]
    shown = {line[0]: line[1:-1] for line in cells if len(line) > 3}
    assert shown["a"] == ["12.5 ms", "", "1", "12.3x", ""]
    assert shown["b"] == ["4 µs", "3.5 µs - 4.5 µs", "3", "", "1,234"]
    assert [shown[name][0] for name in "cdef"] == ["3 MiB", "2 KiB", "0 KiB", "0.517"]


def test_a_busy_machine_is_called_one(capsys):
    quiet = {"processor": "P", "cores": 2, "torch": "2", "date": "now", "load": [0.4, 0.0, 0.0]}
    report.print_machine(quiet)
    assert capsys.readouterr().out == "P, 2 cores, load 0.4; torch 2, now\n"
    report.print_machine(quiet | {"load": [0.6, 0.0, 0.0], "gpu": "G"})
    assert capsys.readouterr().out.startswith("G, P, 2 cores, load 0.6; torch 2, now\nothers are at work")


def test_the_commit_is_that_of_a_checkout_of_memnet_only(monkeypatch, tmp_path):
    """The installed package may lie in somebody else's repository."""
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "memnet" / "bench" / "machine.py"))
    assert machine.commit() is None
    (tmp_path / ".git").mkdir()
    answers = {"rev-parse": "abc123", "status": ""}
    monkeypatch.setattr(machine, "_git", lambda folder, command, *_: answers[command])
    assert machine.commit() == "abc123"
    answers["status"] = " M memnet/unroll.py"
    assert machine.commit() == "abc123+"


def test_the_description_names_the_machine(settings):
    described = machine.describe(settings)
    assert described["threads"] == 1 and described["cores"] >= 1
    assert described["processor"] and described["date"][:2] == "20"
    assert "gpu" not in described
