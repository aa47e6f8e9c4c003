"""What tasks on pairs of texts share: symbols, batches, loss, metrics, and how an example is shown."""

import math
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from memnet import SampledSlots, reinforce_loss
from memnet.decoding import BOS, EOS, PAD, UNK
from tasks.date import Date
from tasks.pair_set import PairBatch, PairSet
from tasks.translation import Translation
from tasks.vocabulary import CharacterVocabulary
from tests.tasks.encoder_decoders import Scripted, Small

SIZES = {"num_train": 40, "num_val": 12, "num_test": 12, "eval_batch_size": 6}


def date(**arguments):
    return Date(**({"batch_size": 6} | SIZES | arguments))


def ragged_batch(vocab_size=9):
    """Pairs of different lengths."""
    pairs = PairSet([[4, 5, 6], [7], [5, 5, 8, 4, 4]], [[6, 4], [5, 7, 8, 4], []], ["ca", "bdea", ""])
    return pairs.batch(np.array([2, 0, 1]))


def small(task, **arguments):
    return Small(len(task.source_vocabulary), len(task.target_vocabulary), **arguments)


def logits_of(model, batch):
    return model(batch.source, batch.target[:, :-1], batch.source_lengths)


def test_a_character_vocabulary_gives_texts_back():
    vocabulary = CharacterVocabulary("ba c")
    assert len(vocabulary) == 8
    assert vocabulary.encode(["abc", " b", ""]) == [[5, 4, 7], [6, 4], []]
    for text in ("abc cab", "", "  a "):
        (ids,) = vocabulary.encode([text])
        assert vocabulary.decode(ids) == text
        assert vocabulary.decode([BOS, *ids, EOS, 5, PAD]) == text
    assert vocabulary.encode(["axé"]) == [[5, UNK, UNK]]
    assert vocabulary.decode([5, UNK]) == "a<unk>"
    assert vocabulary.symbols([BOS, 5, UNK, EOS, PAD]) == ["<s>", "a", "<unk>", "</s>", "<pad>"]


@pytest.mark.parametrize("alphabet, message", [("", "alphabet is empty"), ("abcb", "alphabet holds 'b' twice")])
def test_an_alphabet_holds_each_character_once(alphabet, message):
    with pytest.raises(ValueError, match=message):
        CharacterVocabulary(alphabet)


def test_a_batch_is_padded_to_its_own_longest():
    batch = ragged_batch()
    assert batch.source.tolist() == [[5, 5, 8, 4, 4], [4, 5, 6, 0, 0], [7, 0, 0, 0, 0]]
    assert batch.target.tolist() == [[1, 2, 0, 0, 0, 0], [1, 6, 4, 2, 0, 0], [1, 5, 7, 8, 4, 2]]
    assert batch.source_lengths.tolist() == [5, 3, 1] and batch.target_lengths.tolist() == [2, 4, 6]
    assert batch.references == ("", "ca", "bdea")
    assert all(part.dtype == torch.int64 for part in batch[:4])
    again = pickle.loads(pickle.dumps(batch))
    assert all(torch.equal(one, two) for one, two in zip(batch[:4], again[:4], strict=True))


def test_the_loss_is_the_cross_entropy_of_the_real_symbols():
    task, batch, model = date(), ragged_batch(), Small(9, 9)
    evaluation = task.evaluate(model, batch)
    probabilities = logits_of(model, batch).double().softmax(-1).detach().numpy()
    nats, right = [0.0] * 3, [0] * 3
    for item, length in enumerate(batch.target_lengths.tolist()):
        for time in range(length - 1):
            label = int(batch.target[item, time + 1])
            nats[item] -= math.log(probabilities[item, time, label])
            right[item] += int(probabilities[item, time].argmax() == label)
    assert evaluation.loss.item() == pytest.approx(sum(nats) / (1 + 3 + 5), rel=1e-5)
    np.testing.assert_allclose(evaluation.metrics["nats"], nats, rtol=1e-5)
    np.testing.assert_allclose(evaluation.metrics["symbol_accuracy"], np.array(right) / [1, 3, 5], rtol=1e-6)
    assert not any(value.requires_grad for value in evaluation.metrics.values())
    assert list(evaluation.metrics) == ["nats", "symbol_accuracy"] and evaluation.answers is None


def test_label_smoothing_is_in_the_loss_and_not_in_the_metrics():
    batch, model = ragged_batch(), Small(9, 9)
    plain = date().evaluate(model, batch)
    smoothed = date(label_smoothing=0.2).evaluate(model, batch)
    real = torch.arange(5) < (batch.target_lengths - 1)[:, None]
    expected = F.cross_entropy(logits_of(model, batch)[real], batch.target[:, 1:][real], label_smoothing=0.2)
    torch.testing.assert_close(smoothed.loss, expected)
    assert not torch.isclose(smoothed.loss, plain.loss)
    assert torch.equal(smoothed.metrics["nats"], plain.metrics["nats"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_stands_in_the_padding_does_not_matter(smoothing):
    task, batch, model = date(label_smoothing=smoothing), ragged_batch(), Small(9, 9)
    poisoned = batch._replace(
        source=torch.where(torch.arange(5) < batch.source_lengths[:, None], batch.source, 8),
        target=torch.where(torch.arange(6) < batch.target_lengths[:, None], batch.target, 8),
    )
    assert not torch.equal(poisoned.target, batch.target)
    results = []
    for each in (batch, poisoned):
        model.zero_grad()
        evaluation = task.evaluate(model, each)
        evaluation.loss.backward()
        results.append([evaluation.loss, *evaluation.metrics.values(), evaluation.outputs, model.output.weight.grad])
    for clean, dirty in zip(*results, strict=True):
        torch.testing.assert_close(clean, dirty)


def test_padded_pairs_score_as_they_do_alone():
    task, batch, model = date(), ragged_batch(), Small(9, 9)
    together = task.evaluate(model, batch)
    for item, (source, target) in enumerate(zip(batch.source_lengths, batch.target_lengths, strict=True)):
        alone = PairBatch(
            batch.source[[item], :source], batch.target[[item], :target], source[None], target[None], ("",)
        )
        evaluation = task.evaluate(model, alone)
        for name, value in evaluation.metrics.items():
            torch.testing.assert_close(value[0], together.metrics[name][item])


@pytest.mark.parametrize("entropy_bonus", [0.0, 0.5])
def test_sampled_slots_add_their_loss(entropy_bonus):
    task, batch, model = date(entropy_bonus=entropy_bonus), ragged_batch(), Small(9, 9)
    without = task.evaluate(model, batch).loss
    model.sampled = SampledSlots(*torch.rand(3, 3, 5).requires_grad_().unbind())
    evaluation = task.evaluate(model, batch)
    real = torch.arange(5) < (batch.target_lengths - 1)[:, None]
    log_likelihood = logits_of(model, batch).log_softmax(-1).gather(-1, batch.target[:, 1:, None]).squeeze(-1)
    added = reinforce_loss(model.sampled, log_likelihood, real, entropy_bonus).sum() / 9
    torch.testing.assert_close(evaluation.loss - without, added)
    assert evaluation.loss != without


def test_extreme_logits_under_autocast_give_finite_numbers():
    task, batch, model = date(label_smoothing=0.1), ragged_batch(), Small(9, 9)
    model.output.weight.data.mul_(1e4)
    with torch.autocast("cpu", torch.bfloat16):
        evaluation = task.evaluate(model, batch)
    evaluation.loss.backward()
    assert evaluation.loss.dtype == torch.float32 and evaluation.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def script(task, texts):
    """The symbols of texts, each ended, padded to one length."""
    rows = task.target_vocabulary.encode(texts)
    width = max(map(len, rows)) + 1
    return torch.tensor([[*row, EOS, *[5] * (width - 1 - len(row))] for row in rows])


def test_what_is_written_is_compared_with_the_target():
    task = date()
    batch = next(iter(task.val_dataloader()))
    right = list(batch.references)
    written = [right[0], right[1][:-1], right[2] + "1", "0" * 10, "", right[5]]
    model = Scripted(len(task.target_vocabulary), script(task, written)).eval()
    evaluation = task.evaluate(model, batch)
    assert evaluation.metrics["error"].tolist() == [0, 1, 1, 1, 1, 0]
    assert evaluation.metrics["exact"].tolist() == [1, 0, 0, 0, 0, 1]
    assert evaluation.answers == list(zip(written, right, strict=True))
    answers = [task.describe(batch, evaluation.outputs, item).splitlines()[-1] for item in range(6)]
    assert answers == [f"agree       {answer}" for answer in ("yes", "no", "no", "no", "no", "yes")]


def test_a_perfect_model_scores_perfectly():
    task = date()
    for loader in [task.val_dataloader(), *task.test_dataloader()]:
        for batch in loader:
            model = Scripted(len(task.target_vocabulary), batch.target[:, 1:]).eval()
            evaluation = task.evaluate(model, batch)
            assert not evaluation.metrics["error"].any() and evaluation.metrics["symbol_accuracy"].all()
            assert evaluation.loss < 1e-5


def test_targets_are_only_written_in_evaluation_and_as_the_arguments_say():
    task = Translation(num_train=50, num_val=3, vocab_size=120, beam_size=3, length_penalty=0.5, max_length=7)
    model = small(task)
    batch = next(iter(task.val_dataloader()))
    task.evaluate(model.train(), batch)
    assert model.generations == []
    evaluation = task.evaluate(model.eval(), batch)
    assert model.generations == [{"max_length": 7, "beam_size": 3, "length_penalty": 0.5}]
    assert evaluation.outputs.shape[1] <= 7
    date_task = date()
    model = small(date_task).eval()
    date_task.evaluate(model, next(iter(date_task.val_dataloader())))
    assert model.generations == [{"max_length": 11, "beam_size": 1, "length_penalty": 1.0}]


def test_a_model_of_another_vocabulary_is_refused():
    task = date()
    task.check_model(Small(63, 63))
    for sizes in [(62, 63), (63, 64)]:
        message = (
            f"Small has source_vocab_size {sizes[0]} and target_vocab_size {sizes[1]}, "
            "but Date needs source_vocab_size 63 and target_vocab_size 63"
        )
        with pytest.raises(ValueError, match=message):
            task.check_model(Small(*sizes))
    with pytest.raises(ValueError, match="Linear has source_vocab_size None"):
        task.check_model(torch.nn.Linear(2, 2))


def test_a_model_for_shorter_sources_is_refused():
    model = Small(63, 63)
    model.max_source_length = 29
    date().check_model(model)
    model.max_source_length = 28
    message = "Small has max_source_length 28, but the longest source of Date has 29 symbols"
    with pytest.raises(ValueError, match=message):
        date().check_model(model)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"eval_batch_size": 0}, "eval_batch_size is 0, but must be a whole number of at least 1"),
        ({"beam_size": 0}, "beam_size is 0, but must be a whole number of at least 1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, but must be at least 0 and less than 1"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1, but must be at least 0 and less than 1"),
        ({"label_smoothing": math.nan}, "label_smoothing is nan"),
        ({"length_penalty": -1.0}, "length_penalty is -1.0, but must be a finite number of at least 0"),
        ({"entropy_bonus": math.inf}, "entropy_bonus is inf, but must be a finite number of at least 0"),
        ({"seed": -1}, "seed is -1, but must be a whole number of at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Translation(**arguments)


def test_an_example_reads_like_this():
    task = date()
    batch = task.pair_set("val").batch(np.array([0]))._replace(references=("1994-09-27",))
    batch = batch._replace(source=torch.tensor(task.encode_sources(["september 27, 1994"])))
    assert task.describe(batch, script(task, ["1994-09-26"]), 0).splitlines() == [
        "source      september 27, 1994",
        "prediction  1994-09-26",
        "target      1994-09-27",
        "agree       no",
    ]


def test_long_examples_are_wrapped():
    task = Translation(num_train=50, vocab_size=120)
    sentence = " ".join(["Die Frau kauft einen Apfel"] * 8)
    batch = task.batch_of(sentence)
    batch = batch._replace(references=(sentence,), target_lengths=torch.tensor([9]))
    text = task.describe(batch, script(task, [sentence]), 0)
    assert max(map(len, text.splitlines())) <= 80
    assert text.split() == ["source", *sentence.split(), "prediction", *sentence.split(), "target", *sentence.split(),
                            "agree", "yes"]  # fmt: skip


def test_typed_text_has_no_target():
    task = date()
    batch = task.batch_of("august 19, 2003")
    assert task.source_vocabulary.decode(batch.source[0].tolist()) == "august 19, 2003".ljust(29)
    assert batch.target.tolist() == [[BOS, EOS]]
    evaluation = task.evaluate(small(task).eval(), batch)
    text = task.describe(batch, evaluation.outputs, 0)
    assert [line.split()[0] for line in text.splitlines()] == ["source", "prediction"]


@pytest.mark.parametrize("text", ["", "   "])
def test_typed_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"--input is '.*', but must hold a text for Date"):
        date().batch_of(text)


def test_unknown_typed_symbols_are_counted_in_a_warning():
    task = date()
    with pytest.warns(UserWarning, match=r"2 of 29 symbols in --input .* <unk>, the first in 'quiz 1994'"):
        batch = task.batch_of("quiz 1994")
    assert (batch.source == UNK).sum() == 2


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_the_alignment_is_of_what_the_model_writes(monkeypatch, one_by_one, num_heads):
    task = date()
    model = small(task, one_by_one=one_by_one, num_heads=num_heads).eval()
    batch = task.pair_set("val").batch(np.array([3, 4]))
    drawn = []
    monkeypatch.setattr("memnet.training.alignment.draw_alignment", lambda *arguments: drawn.append(arguments))
    assert list(task.draw(model, batch, "a title")) == ["alignment"]
    ((alignments, source, target, title),) = drawn
    tokens, weights = model.generate(batch.source[:1], max_length=11)
    assert title == "a title"
    assert "".join(source) == task.source_vocabulary.decode(batch.source[0].tolist())
    assert target == task.target_vocabulary.symbols(tokens[0].tolist())
    assert alignments["addressing"].shape == (num_heads, len(target), 29)
    for head in alignments["addressing"]:
        np.testing.assert_allclose(head, weights[0].detach(), rtol=1e-5, atol=1e-7)


def test_a_single_step_of_several_heads_is_told_apart(monkeypatch):
    """Both ways of recording have one step then; only the number of heads differs from the number of steps."""
    task = Translation(num_train=50, num_val=3, vocab_size=120, max_length=1)
    drawn = []
    monkeypatch.setattr("memnet.training.alignment.draw_alignment", lambda *arguments: drawn.append(arguments))
    batch = next(iter(task.val_dataloader()))
    for one_by_one in (False, True):
        task.draw(small(task, one_by_one=one_by_one, num_heads=3).eval(), batch, "")
    shapes = [alignments["addressing"].shape for alignments, *_ in drawn]
    assert shapes == [(3, 1, int(batch.source_lengths[0]))] * 2


def test_an_alignment_can_be_drawn_of_typed_text():
    task = date()
    figures = task.draw(small(task).eval(), task.batch_of("august 19, 2003"), "typed")
    assert type(figures["alignment"]).__name__ == "Figure"


def test_a_model_without_alignment_has_no_picture():
    task = date()
    batch = next(iter(task.val_dataloader()))
    assert task.draw(Scripted(63, batch.target[:, 1:]).eval(), batch, "title") == {}


def test_lengths_stay_on_the_cpu():
    """Tensors that hold no numbers stand in for a GPU's."""
    task = date()
    batch = next(iter(task.train_dataloader()))
    moved = task.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert [part.device.type for part in moved[:4]] == ["meta", "meta", "cpu", "cpu"]
    assert moved.references == batch.references


def test_lightning_trains_and_tests_with_the_loaders(tmp_path):
    class Module(pl.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model, self.seen = model, []

        def training_step(self, batch, batch_idx):
            self.seen.append(("train", len(batch.source)))
            return self.trainer.datamodule.evaluate(self.model, batch).loss

        def validation_step(self, batch, batch_idx):
            self.seen.append(("val", len(batch.source)))

        def test_step(self, batch, batch_idx):
            self.seen.append(("test", len(batch.source)))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    task = date(num_val=8)
    module = Module(small(task))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "default_root_dir": tmp_path}
    trainer = pl.Trainer(max_steps=16, val_check_interval=8, **quiet)
    trainer.fit(module, datamodule=task)
    assert module.seen == ([("train", 6)] * 8 + [("val", 6), ("val", 2)]) * 2
    module.seen.clear()
    trainer.test(module, datamodule=task, verbose=False)
    assert module.seen == [("test", 6)] * 2
