"""Every experiment in ``configs/`` parses, trains for a few steps, tests and loads."""

from pathlib import Path

import pytest
import torch
import yaml

import memnet
import tasks
from memnet.__main__ import main
from memnet.models.encoder_decoder import EncoderDecoder
from memnet.training.cli import build

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def test_the_experiments_of_the_paper_are_there():
    tasks = ("copy", "repeat_copy", "associative_recall", "ngrams", "priority_sort")
    expected = {f"{network}_{task}" for network in ("ntm", "ntm_ff") for task in tasks}
    assert {path.stem for path in CONFIGS} >= expected | {"lstm_copy", "lstm_priority_sort"}


def test_the_experiments_on_dates_and_sentences_are_there():
    dates = {
        f"{model}_date"
        for model in ("seq2seq", "peeky", "attention", "transformer", "hard_attention", "local_attention")
    }
    sentences = {f"{model}_translation" for model in ("attention", "gnmt", "transformer")}
    assert {path.stem for path in CONFIGS} >= dates | sentences


def test_the_experiments_on_stories_are_there():
    networks = {f"memn2n_babi{kind}" for kind in ("", "_joint", "_bow", "_layerwise", "_10k_d100_relu")} | {"lstm_babi"}
    assert {path.stem for path in CONFIGS} >= networks


def few(config, folder):
    """Flags that leave two steps on little data; and the data, where the experiment wants files."""
    content = yaml.safe_load(config.read_text())
    kind, settings = content["data"]["class_path"], content["data"].get("init_args", {})
    data = "data.babi" if kind == "tasks.BabiEnsemble" else "data"
    flags = {
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "trainer.num_sanity_val_steps": 0,
        f"{data}.num_val": 2,
        f"{data}.num_test": 2,
        f"{data}.eval_batch_size": 2,
    }
    if kind in ("tasks.Babi", "tasks.BabiEnsemble"):
        flags |= {f"{data}.num_train": 20, f"{data}.batch_size": 4}
    elif kind == "tasks.Date":
        flags |= {"data.num_train": 50, "data.batch_size": 4}
    elif kind == "tasks.Translation":
        flags |= {"data.num_train": 2000, "data.max_tokens": 256, "data.max_length": 5}
        if "folder" in settings:
            write_sentences(folder / "sentences")
            flags |= {"data.folder": folder / "sentences", "data.vocab_size": 500}
            network = content["model"]["network"]["init_args"]
            sizes = [name for name in ("source_vocab_size", "target_vocab_size") if name in network]
            sizes += [f"{part}.init_args.vocab_size" for part in ("encoder", "decoder") if part in network]
            flags |= {f"model.network.init_args.{name}": 500 for name in sizes}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def write_sentences(folder):
    folder.mkdir()
    task = tasks.Translation()
    for name, count in (("train", 2000), ("val", 2), ("test", 2)):
        pairs = task.read(name if name != "test" else task.test_names[0])[:count]
        for language, texts in zip(("de", "en"), zip(*pairs, strict=True), strict=True):
            (folder / f"{name}.{language}").write_text("\n".join(texts) + "\n", encoding="utf-8")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_and_loads(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(config), *few(config, tmp_path)])
    run = tmp_path / "runs" / config.stem / "version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    network = memnet.load(run / "checkpoints" / "best.ckpt")
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    if isinstance(network, memnet.Ensemble):
        network = network.member(0)
    if isinstance(network, EncoderDecoder):
        assert network(torch.tensor([[5, 6, 2]]), torch.tensor([[1, 7]])).shape == (1, 2, network.target_vocab_size)
    elif hasattr(network, "num_answers"):
        assert network(torch.tensor([[[5, 6, 0]]]), torch.tensor([[7, 5]])).shape == (1, network.num_answers)
    else:
        outputs, _ = network(torch.zeros(1, 2, network.input_size))
        assert outputs.shape == (1, 2, network.output_size)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_how_it_is_run_and_what_to_expect(config):
    """Its header: the command, and a result or why there is none. And it is whole, for one task and one network."""
    text = config.read_text()
    header = text[: text.index("seed_everything")]
    assert f"memnet fit --config configs/{config.name}" in header
    assert "Expect" in header
    content = yaml.safe_load(text)
    assert content.keys() >= {"seed_everything", "model", "data", "trainer"}
    assert content["model"].keys() >= {"network", "optimizer"}


SWEEPS = sorted((Path(__file__).parent.parent / "configs" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
@pytest.mark.parametrize("last", [False, True])
def test_the_flags_of_a_sweep_are_accepted(sweep, last, monkeypatch):
    """As an agent writes them: ``--key=value`` for each parameter, after the command."""
    monkeypatch.chdir(sweep.parents[2])
    content = yaml.safe_load(sweep.read_text())
    program, *words = content["command"]
    assert program == "${program}" and words.pop() == "${args}" and words[0] == "fit"
    flags = []
    for name, parameter in content["parameters"].items():
        choices = parameter.get("values") or [parameter["min"], parameter["max"]]
        flags.append(f"--{name}={choices[-1 if last else 0]}")
    config = words[words.index("--config") + 1]
    parsed = yaml.safe_load(Path(config).read_text())
    keys = {flag.partition("=")[0].removeprefix("--"): flag.partition("=")[2] for flag in flags}
    cli = build(_with(parsed, keys), run=False)
    assert cli.model.network is not None and cli.datamodule.batch_size in (1, 8)


def _with(config, keys):
    for key, value in keys.items():
        *parents, name = key.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = yaml.safe_load(value)
    return {name: config[name] for name in ("model", "data", "trainer", "seed_everything")}
