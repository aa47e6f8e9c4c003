"""Dates, long sequences, starts."""

import pytest
import torch
import yaml

from memnet.bench import children, peak
from memnet.bench.benchmarks import date, startup, unroll_memory
from memnet.bench.benchmarks.unroll_memory import growth_exponent
from memnet.kernels import build, ntm_cpu

CPU = torch.device("cpu")


def test_our_attention_is_the_plain_one(settings):
    work = date.DateWork(batch=3, source=5, target=4, symbols=9, embedding=2, hidden=7)
    (measured,) = date.run(settings, work)
    assert measured.work == "batch 3, 1 thread"
    assert [row.way for row in measured.rows] == ["plain PyTorch", "memnet.Seq2Seq", "floor (matrix products)"]
    assert measured.difference < 1e-5


def test_every_weight_s_gradient_is_compared():
    work = date.DateWork(batch=3, source=5, target=4, symbols=9, embedding=2, hidden=7)
    plain, ours = date.ways(work, CPU)
    for way in (plain, ours):
        way.run()
    names = {f"gradient of {name}" for name, _ in date.PlainSeq2Seq(work).named_parameters()}
    assert plain.results().keys() == ours.results().keys() == names | {"loss"}
    assert all(gradient.abs().max() > 0 for gradient in ours.results().values())


def test_the_textbook_s_sizes():
    work = date.DateWork()
    assert (work.batch, work.source, work.target, work.embedding, work.hidden) == (128, 29, 11, 16, 256)
    source, target_in, target = work.draw(CPU)
    assert source.shape == (128, 29) and target_in.shape == target.shape == (128, 11)
    assert source.min() >= 4 and source.max() < work.symbols == 63


def test_growth_exponent():
    assert growth_exponent({10: 5.0, 100: 50.0, 1000: 500.0}) == pytest.approx(1)
    assert growth_exponent({steps: 7 * steps**0.5 for steps in (100, 1000, 10000)}) == pytest.approx(0.5)
    assert growth_exponent({10: 5.0}) is None
    assert growth_exponent({10: 0.0, 100: 5.0}) is None


def test_memory_stands_in_a_table_by_length(settings, monkeypatch, capsys):
    def fake(way, steps, batch, threads, device):
        if way == peak.PLAIN and steps > 300:
            raise ChildProcessError("it was killed")
        return steps * 1000 if way == peak.PLAIN else int(steps**0.5 * 1000)

    monkeypatch.setattr(unroll_memory, "peak_bytes", fake)
    *works, exponents = unroll_memory.run(settings, lengths=(100, 400, 900))
    assert [each.work for each in works] == ["100 steps", "400 steps", "900 steps"]
    assert all(each.unit == "B" for each in works)
    assert [row.times_less for row in works[0].rows] == [1, 10, 10, 10]
    # Where the first way failed there is nothing to compare with.
    assert [(row.way, row.times_less) for row in works[2].rows] == [(way, None) for way in peak.WAYS[1:]]
    assert works[2].notes == ("it was killed",)
    assert {row.way: row.median for row in exponents.rows} == pytest.approx(
        {way: 0.5 for way in peak.WAYS[1:]}, abs=0.01
    )
    assert "900 steps, kernel" in capsys.readouterr().err


@pytest.mark.skipif(build.load(ntm_cpu.SOURCE) is None, reason="there is no C++ compiler here")
def test_peak_memory_is_measured_in_a_process_of_its_own():
    big = torch.ones(2**26)  # 256 MiB here must not count there
    plain, fast = (peak.peak_bytes(way, 200, 4, 1, CPU) for way in (peak.PLAIN, peak.KERNEL))
    # The plain loop keeps at least the memory of every step, 4 x 128 x 20 numbers; the kernel every 14th.
    assert 200 * 4 * 128 * 20 * 4 < plain < big.nbytes
    assert 0 < fast < plain / 2


def test_a_process_that_fails_says_why():
    with pytest.raises(ChildProcessError, match=r"exit code 3: no room left"):
        children.python(["-c", "import sys; print('no room left', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(ChildProcessError, match="killed by signal 9"):
        children.python(["-c", "import os; os.kill(os.getpid(), 9)"])


def test_starts_are_those_of_the_commands(settings, monkeypatch):
    started = []
    monkeypatch.setattr(children, "python", lambda arguments, folder: started.append(arguments))
    (measured,) = startup.run(settings)
    assert [row.way for row in measured.rows] == [
        "python -c 'import memnet'",
        "memnet --version",
        "memnet --help",
        "memnet fit --help",
        "memnet fit, to the first step",
        "floor (import torch)",
    ]
    assert all(row.times_less is None for row in measured.rows)
    assert ("-m", "memnet", "fit", "--help") in started and ("-c", "import torch") in started
    assert any("configs/ntm_copy.yaml" in word for arguments in started for word in arguments)


def test_without_a_checkout_nothing_is_trained(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(children, "python", lambda arguments, folder: None)
    monkeypatch.setattr(startup, "CONFIG", tmp_path / "none.yaml")
    (measured,) = startup.run(settings)
    assert "memnet fit, to the first step" not in [row.way for row in measured.rows]
    assert "no configs/ntm_copy.yaml" in measured.notes[0]


def test_training_ends_with_its_first_step(tmp_path):
    """From any folder. The metrics would be written at every step, and training would fail, had the process gone on."""
    network = {"class_path": "memnet.NTM", "init_args": {"input_size": 9, "output_size": 8}}
    data = {"class_path": "tasks.Copy", "init_args": {"batch_size": 1}}
    trainer = {"max_steps": 1000, "log_every_n_steps": 1}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": {"network": network}, "data": data, "trainer": trainer}))
    children.python(["-c", startup.FIRST_STEP, "fit", "--config", "a.yaml", "--run_dir", "runs"], tmp_path)
    assert (tmp_path / "runs/a/version_0/config.yaml").is_file()
    assert not (tmp_path / "runs/a/version_0/metrics.csv").is_file()
    assert not (tmp_path / "runs/a/version_0/checkpoints").exists()
