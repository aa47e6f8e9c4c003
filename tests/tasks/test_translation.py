"""Sentences from files and from the phrase book, as subwords in batches; BLEU and chrF."""

import builtins
import gzip
import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from sacrebleu.metrics import BLEU, CHRF

from memnet.__main__ import main
from memnet.decoding import BOS, EOS, UNK
from memnet.loading import read_checkpoint
from memnet.training.plotting import task_of
from tasks.base import Task
from tasks.translation import Translation
from tests.tasks.encoder_decoders import Scripted, Small

SMALL = {"num_train": 200, "num_val": 20, "num_test": 30, "vocab_size": 200, "max_tokens": 300, "eval_batch_size": 8}
PAIRS = [(f"Der {kind} Hund läuft {time}.", f"The {kind} dog runs {time}.") for kind in "abcdef" for time in "uvwxyz"]


def small(**arguments):
    return Translation(**(SMALL | arguments))


def take(task, count):
    return list(itertools.islice(task.train_dataloader(), count))


def rows(batches):
    return [
        (tuple(source[: int(length)].tolist()), text)
        for batch in batches
        for source, length, text in zip(batch.source, batch.source_lengths, batch.references, strict=True)
    ]


def write(path, lines, compress=bytes):
    path.write_bytes(compress("".join(f"{line}\n" for line in lines).encode()))
    return str(path)


def folder_of(path, ending="", compress=bytes, tests=("test_2016_flickr",), pairs=PAIRS):
    for name in ("train", "val", *tests):
        for language, side in (("de", 0), ("en", 1)):
            write(path / f"{name}.{language}{ending}", [pair[side] for pair in pairs], compress)
    return str(path)


@pytest.mark.parametrize("ending, compress", [("", bytes), (".gz", gzip.compress)])
def test_a_folder_is_read(tmp_path, ending, compress):
    folder = folder_of(tmp_path, ending, compress, tests=("test_b", "test_a"))
    task = Translation(folder=folder, vocab_size=60, num_test=7)
    assert task.test_names == ["test_a", "test_b"]
    assert task.read("train") == task.read("val") == PAIRS and task.read("test_a") == PAIRS[:7]
    assert task.epoch_size == len(PAIRS)
    back = Translation(folder=folder, vocab_size=60, source_language="en", target_language="de")
    assert back.read("val") == [(target, source) for source, target in PAIRS]


def test_without_a_test_set_validation_is_the_test(tmp_path):
    task = Translation(folder=folder_of(tmp_path, tests=()), vocab_size=60, num_val=5)
    assert task.test_names == ["val"]
    assert rows(task.test_dataloader()[0]) == rows(task.val_dataloader()) and len(rows(task.val_dataloader())) == 5


def test_files_can_be_named_one_by_one(tmp_path):
    paths = [write(tmp_path / name, [pair[side] for pair in PAIRS]) for side, name in enumerate(("deutsch", "english"))]
    task = Translation(train=paths, val=paths, tests={"mine": paths}, vocab_size=60)
    assert task.test_names == ["mine"] and task.read("mine") == PAIRS


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"folder": "nowhere"}, "folder is nowhere, but there is no such folder"),
        ({"folder": ".", "val": ["a", "b"]}, "folder and val are both given"),
        ({"train": ["a", "b"]}, "train is given, but train and val must both be"),
        ({"tests": {"mine": ["a", "b"]}}, "tests is given, but train and val must both be"),
        ({"train": ["a"], "val": ["a", "b"]}, "the train set has 1 files, but must have a source and a target file"),
        ({"train": ["a", "b"], "val": ["a", "b"], "tests": {"val": ["a", "b"]}}, "tests names a set 'val'"),
        ({"num_train": 0}, "num_train is 0, but must be a whole number of at least 1"),
        ({"num_test": -1}, "num_test is -1"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_length": 0}, "max_length is 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Translation(**arguments)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither train\.de nor train\.de\.gz"):
        Translation(folder=str(tmp_path))
    folder_of(tmp_path)
    (tmp_path / "test_2016_flickr.en").unlink()
    with pytest.raises(ValueError, match=r"holds neither test_2016_flickr\.en nor test_2016_flickr\.en\.gz"):
        Translation(folder=str(tmp_path))


@pytest.mark.parametrize("size, message", [
    (10, r"vocab_size is 10, but must be more than the texts' \d+ characters and reserved symbols"),
    (90_000, r"vocab_size is 90000, but the training texts have parts for at most \d+ symbols"),
])  # fmt: skip
def test_sizes_that_cannot_be_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        len(small(vocab_size=size).source_vocabulary)


@pytest.mark.parametrize("module, use", [
    ("sentencepiece", lambda: small().source_vocabulary),
    ("sacrebleu", lambda: small().signatures()),
])  # fmt: skip
def test_without_the_extra_an_error_names_it(monkeypatch, module, use):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"{module} package: pip install 'memnet\[translation\]'"):
        use()


@pytest.mark.parametrize("joint", [True, False])
def test_languages_share_their_subwords_or_do_not(joint):
    task = small(joint_vocabulary=joint, vocab_size=150)
    source, target = task.source_vocabulary, task.target_vocabulary
    assert len(source) == len(target) == 150
    assert (source is target) == joint
    assert (source.encode(["The boys"]) == target.encode(["The boys"])) == joint
    task.check_model(Small(150, 150))
    message = "Small has source_vocab_size 150 and target_vocab_size 149, but Translation needs source_vocab_size 150"
    with pytest.raises(ValueError, match=message):
        task.check_model(Small(150, 149))


def test_a_model_for_shorter_sources_is_refused():
    task = small()
    longest = max(len(symbols) + 1 for name in ("train", "val", "phrase book")
                  for symbols in task.source_vocabulary.encode([source for source, _ in task.read(name)]))  # fmt: skip
    assert task.longest_source == longest
    model = Small(200, 200)
    model.max_source_length = longest - 1
    with pytest.raises(ValueError, match=f"has max_source_length {longest - 1}, but the longest source of Translation"):
        task.check_model(model)


def test_a_checkpoint_keeps_its_subwords(tmp_path):
    task = small()
    assert task.state_dict() == {}
    task.pair_set("train")
    path = tmp_path / "state.pt"
    torch.save(task.state_dict(), path)
    other = small(seed=9, vocab_size=150)
    sentence = "Der alte Mann sieht die Katze."
    before = other.batch_of(sentence).source
    other.pair_set("val")
    other.load_state_dict(torch.load(path, weights_only=True))
    assert len(other.source_vocabulary) == 200
    assert torch.equal(other.batch_of(sentence).source, task.batch_of(sentence).source)
    assert not torch.equal(other.batch_of(sentence).source, before)
    assert rows(other.val_dataloader()) == rows(task.val_dataloader())


def test_commands_use_the_checkpoints_subwords_whatever_became_of_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path)
    size = {"vocab_size": 60, "embedding_size": 4, "hidden_size": 4}
    network = {"encoder": ("RecurrentEncoder", size), "decoder": ("PlainDecoder", size)}
    network = {name: {"class_path": f"memnet.{kind}", "init_args": sizes} for name, (kind, sizes) in network.items()}
    config = {
        "model": {"network": {"class_path": "memnet.Seq2Seq", "init_args": network}},
        "data": {"class_path": "tasks.Translation", "init_args": {"folder": ".", "vocab_size": 60, "max_length": 5}},
        "trainer": {"max_steps": 1, "val_check_interval": 1, "num_sanity_val_steps": 0, "accelerator": "cpu"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "tiny.yaml"])
    checkpoint = "runs/tiny/version_0/checkpoints/best.ckpt"
    capsys.readouterr()
    main(["test", "--ckpt_path", checkpoint])
    assert "bleu: sacrebleu, nrefs:1|case:lc" in capsys.readouterr().out
    answers = []
    for number in range(2):
        capsys.readouterr()
        main(["predict", "--ckpt_path", checkpoint, "--input", "Der a Hund"])
        answers.append(capsys.readouterr().out)
        # Other words in the files now, and so other subwords.
        folder_of(tmp_path, pairs=[("Katze und Maus zusammen " * 3, "cats and mice together " * 3)] * (9 + number))
    assert "source      Der a Hund\n" in answers[0] and answers[0] == answers[1]
    with pytest.warns(UserWarning, match="in the train set are not in the vocabulary"):
        task = task_of(read_checkpoint(checkpoint), checkpoint)
        assert task.pair_set("train").batch(np.array([0])).references[0].startswith("cats and mice")
    assert task.source_vocabulary.decode(task.batch_of("Der a Hund").source[0].tolist()) == "Der a Hund"


def test_a_batch_holds_what_the_texts_say():
    task = small()
    pairs = dict(zip((target for _, target in task.read("train")), task.read("train"), strict=True))
    for batch in take(task, 5):
        for item, text in enumerate(batch.references):
            source = batch.source[item, : batch.source_lengths[item]].tolist()
            target = batch.target[item, : batch.target_lengths[item]].tolist()
            assert source[-1] == EOS and source.count(EOS) == 1
            assert target[0] == BOS and target[-1] == EOS and target.count(EOS) == 1
            assert task.source_vocabulary.decode(source) == pairs[text][0]
            assert task.target_vocabulary.decode(target[1:]) == text
            assert not batch.source[item, len(source) :].any() and not batch.target[item, len(target) :].any()
        assert max(batch.source.numel(), batch.target[:, 1:].numel()) <= 300


def test_tokens_are_what_the_decoder_is_shown(tmp_path):
    """BOS and the target's subwords, but not EOS."""
    folder = folder_of(tmp_path, pairs=[("x", "y z " * 8)] * 3)
    arguments = {"folder": folder, "vocab_size": 8}
    (length,) = set(Translation(**arguments).pair_set("train").target_lengths.tolist())
    (batch,) = take(Translation(**arguments, max_tokens=length - 1), 1)
    assert batch.target[:, :-1].shape == (1, length - 1)
    with pytest.raises(ValueError, match=f"max_tokens is {length - 2}, but the longest text alone has {length - 1}"):
        take(Translation(**arguments, max_tokens=length - 2), 1)


def test_an_epoch_has_each_training_pair_once():
    task = small()
    number = task.schedule(task.pair_set("train")).num_batches
    batches = take(task, 2 * number)
    first, second = rows(batches[:number]), rows(batches[number:])
    everything = rows([task.pair_set("train").batch(np.arange(200))])
    assert sorted(first) == sorted(second) == sorted(everything) and first != second


def test_the_training_stream_is_a_function_of_the_seed_and_goes_on_anywhere(tmp_path):
    folder = folder_of(tmp_path)
    arguments = {"folder": folder, "vocab_size": 60, "max_tokens": 120, "seed": 3}
    whole = [rows([batch]) for batch in take(Translation(**arguments), 30)]
    again = Translation(**arguments)
    again.batches_consumed = 17
    assert [rows([batch]) for batch in take(again, 13)] == whole[17:]
    other = Translation(**(arguments | {"seed": 4}))
    assert [rows([batch]) for batch in take(other, 30)] != whole
    assert rows(other.val_dataloader()) == rows(again.val_dataloader())


def test_unknown_symbols_are_counted_in_one_warning(tmp_path):
    folder = folder_of(tmp_path)
    write(tmp_path / "val.de", ["Der a Hund läuft u.", "Der ☃ Hund läuft ♞."])
    write(tmp_path / "val.en", ["The a dog runs u.", "The ☃ dog runs u."])
    task = Translation(folder=folder, vocab_size=60)
    with pytest.warns(UserWarning) as caught:
        (batch,) = task.val_dataloader()
    (message,) = [str(each.message) for each in caught]
    assert re.fullmatch(
        r"3 of \d+ symbols in the val set are not in the vocabulary and are read as <unk>, "
        r"the first in 'Der ☃ Hund läuft ♞\.'\.",
        message,
    )
    assert (batch.source == UNK).sum(1).tolist() == [0, 2]
    # What is measured is measured against the text itself.
    assert batch.references[1] == "The ☃ dog runs u."


def test_text_can_be_made_lower_case(tmp_path):
    task = Translation(folder=folder_of(tmp_path), vocab_size=60, lowercase=True)
    assert task.read("val") == [(source.lower(), target.lower()) for source, target in PAIRS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = task.batch_of("  DER a HUND  ")
    assert task.source_vocabulary.decode(batch.source[0].tolist()) == "der a hund"


def test_scores_are_sacrebleus_own():
    task = small()
    answers = [(target if place % 3 else source, target) for place, (source, target) in enumerate(task.read("val"))]
    written, right = [list(side) for side in zip(*answers, strict=True)]
    bleu, chrf = BLEU(lowercase=True), CHRF(lowercase=True)
    scores = task.corpus_metrics(answers, {"nats": 30.0, "symbols": 12.0})
    assert scores == {
        "bleu": bleu.corpus_score(written, [right]).score,
        "chrf": chrf.corpus_score(written, [right]).score,
        "perplexity": math.exp(2.5),
    }
    assert 20 < scores["bleu"] < 95
    assert task.signatures() == {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    assert "case:lc" in task.signatures()["bleu"] and "tok:13a" in task.signatures()["bleu"]


def test_the_perplexity_of_an_untrained_model_is_finite():
    scores = small().corpus_metrics([("a", "b")], {"nats": 1e6, "symbols": 2.0})
    assert math.isfinite(scores["perplexity"]) and scores["perplexity"] > 1e200


def test_means_over_sentences_give_the_perplexity_of_the_corpus():
    task = small()
    model = Small(200, 200).eval()
    nats, symbols, logs = [], [], []
    for batch in task.val_dataloader():
        evaluation = task.evaluate(model, batch)
        nats += evaluation.metrics["nats"].tolist()
        symbols += evaluation.metrics["symbols"].tolist()
        log_probs = model(batch.source, batch.target[:, :-1], batch.source_lengths).detach().log_softmax(-1)
        for row, target, length in zip(log_probs, batch.target, batch.target_lengths.tolist(), strict=True):
            logs += [float(row[time, target[time + 1]]) for time in range(length - 1)]
    means = {"nats": float(np.mean(nats)), "symbols": float(np.mean(symbols))}
    perplexity = task.corpus_metrics([("a", "a")], means)["perplexity"]
    assert perplexity == pytest.approx(math.exp(-np.mean(logs)), rel=1e-5)


def test_a_model_that_writes_the_references_has_all_points():
    task = small()
    answers = []
    for batch in task.val_dataloader():
        evaluation = task.evaluate(Scripted(200, batch.target[:, 1:]).eval(), batch)
        assert list(evaluation.metrics) == ["nats", "symbol_accuracy", "symbols"]
        answers += evaluation.answers
    assert answers == [(target, target) for _, target in task.read("val")]
    scores = task.corpus_metrics(answers, {"nats": 0.0, "symbols": 1.0})
    assert scores["bleu"] == pytest.approx(100) and scores["chrf"] == pytest.approx(100)


def test_the_phrase_book_needs_no_files():
    task = Translation()
    assert [len(task.read(name)) for name in ("train", "val", "phrase book")] == [10_000, 500, 500]
    assert task.test_names == ["phrase book"] and len(task.source_vocabulary) == 500
    assert task.epoch_size == 10_000


def test_no_sentence_of_the_phrase_book_is_in_two_sets():
    sets = [small(num_train=3000, seed=seed).read("train") for seed in (1, 2)]
    sets += [small(num_val=500, num_test=500).read(name) for name in ("val", "phrase book")]
    train, other, val, test = ({source for source, _ in pairs} for pairs in sets)
    assert not (train | other) & (val | test) and not val & test
    assert train != other and len(train) > 2900 and len(val) > 480


def test_the_seed_decides_on_the_phrase_books_training_set_only():
    one, other = small(), small(seed=2)
    assert one.read("val") == other.read("val") and one.read("phrase book") == other.read("phrase book")
    assert one.read("train") == small(num_train=250).read("train")[:200] != other.read("train")


# Renamed in a jsonargparse newer than the oldest one supported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command_line_sees_every_argument_and_hyperparameters_rebuild_the_task(tmp_path):
    paths = [write(tmp_path / name, [pair[side] for pair in PAIRS]) for side, name in enumerate("ab")]
    arguments = {"train": paths, "val": paths, "tests": {"mine": paths}, "vocab_size": 60, "beam_size": 2, "seed": 5}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    parsed = parser.parse_object({"data": {"class_path": "tasks.Translation", "init_args": arguments}})
    task = parser.instantiate_classes(parsed).data
    again = Translation(**Translation(**arguments).hparams)
    for each in (task, again):
        assert each.read("mine") == PAIRS and (each.beam_size, each.seed, each.vocab_size) == (2, 5, 60)
