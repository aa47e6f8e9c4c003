"""How the bAbI task shows an example, reads a typed one, and what the commands print and write."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from memnet.__main__ import main
from memnet.training.report import test_rows as rows_of
from tasks import Babi
from tasks.babi import NUM_ANSWERS, PUBLISHED, VOCAB_SIZE, VOCABULARY, StoryAnswers
from tasks.babi.vocabulary import IDS, NULL, UNKNOWN
from tests.tasks.babi.standin import Bag, TwoHops

SMALL = {"num_train": 60, "num_test": 20, "batch_size": 8, "eval_batch_size": 7}
STANDIN = "tests.tasks.babi.standin.TwoHops"


@pytest.fixture
def small():
    return Babi(**SMALL)


def model(**changes):
    return TwoHops(VOCAB_SIZE, NUM_ANSWERS, **changes).eval()


@pytest.fixture
def example(small):
    """A typed story, with answers as a model might give them."""
    batch = small.batch_of("1 Mary got the milk.\n2 John left.\n3 Mary went up.\n4 Where is the milk? \tgarden\t3 1\n")
    logits = torch.zeros(1, NUM_ANSWERS)
    logits[0, IDS["hallway"]] = math.log(61)  # as likely as all 61 others together
    weights = torch.tensor([[[0.0, 0.9, 0.1], [0.004, 0.006, 0.99]]])
    return batch, StoryAnswers(logits, weights)


def test_a_question_as_text(small, example):
    assert small.describe(*example, 0).splitlines() == [
        "  hop 1  hop 2",
        "      .      .  * mary got the milk",
        "   0.90   0.01    john left",
        "   0.10   0.99  * mary went up",
        "question  where is the milk?",
        "answer    hallway (0.50)",
        "expected  garden: wrong",
    ]


def test_a_question_whose_answer_nobody_knows_as_text(small, example):
    batch, outputs = example
    unknown = batch._replace(answer=torch.zeros(1, dtype=torch.int64), task=torch.tensor([5]))
    lines = small.describe(unknown, outputs._replace(weights=None), 0).splitlines()
    assert lines == [
        "5 three-arg-relations",
        "  * mary got the milk",
        "    john left",
        "  * mary went up",
        "question  where is the milk?",
        "answer    hallway (0.50)",
    ]


def test_of_a_long_story_what_was_used_is_shown(small):
    names = ["mary", "john", "sandra", "daniel"]
    text = "\n".join(f"{n + 1} {names[n % 4]} went to the garden." for n in range(40)) + "\n41 Who left? \tmary\t9\n"
    batch = small.batch_of(text)
    weights = torch.zeros(1, 2, 40)
    weights[0, 0, 17] = weights[0, 1, 30] = 0.96
    weights[0, 0, 5] = weights[0, 1, 6] = 0.04
    lines = small.describe(batch, StoryAnswers(torch.zeros(1, NUM_ANSWERS), weights), 0).splitlines()
    assert lines[1:5] == [
        "      .      .  * mary went to the garden",
        "   0.96      .    john went to the garden",
        "      .   0.96    sandra went to the garden",
        "                  (and 37 of 40 sentences hardly looked at)",
    ]


def test_weight_on_slots_without_a_sentence_is_shown_as_such(small, example):
    batch, outputs = example
    weights = torch.cat([outputs.weights, torch.tensor([[[0.2, 0.3], [0.0, 0.01]]])], 2)
    lines = small.describe(batch, outputs._replace(weights=weights), 0).splitlines()
    assert lines[3:5] == ["   0.10   0.99  * mary went up", "   0.50   0.01    (no sentence)"]
    small_rest = outputs._replace(weights=weights.clamp(max=0.02))
    assert "(no sentence)" not in small.describe(batch, small_rest, 0)
    axis = small.draw(model(num_sentences=50), batch, "title")["hops"].axes[0]
    assert axis.get_yticklabels()[-1].get_text() == "(no sentence)"
    np.testing.assert_allclose(axis.images[0].get_array().sum(0), 1, rtol=1e-5)


def test_every_question_of_a_batch_can_be_shown(small):
    batch = next(iter(small.val_dataloader()))
    outputs = small.evaluate(model(), batch).outputs
    for item in range(6):
        text = small.describe(batch, outputs, item)
        assert text.startswith("1 single-supporting-fact\n  hop 1  hop 2\n") and "expected" in text
        assert text.count("*") == int(batch.supports[item].sum()) == 1


def test_a_question_as_a_picture(small, example):
    batch, _ = example
    figures = small.draw(model(), batch, "title $1")
    assert figures.keys() == {"hops"}
    axis = figures["hops"].axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["hop 1", "hop 2"]
    labels = axis.get_yticklabels()
    assert [label.get_text() for label in labels] == ["mary got the milk ●", "john left", "mary went up ●"]
    assert [label.get_fontweight() for label in labels] == ["bold", "normal", "bold"]
    weights = small.evaluate(model(), batch).outputs.weights[0]
    assert axis.images[0].get_array().shape == (3, 2)
    figures["hops"].canvas.draw()
    assert "where is the milk?" in figures["hops"].get_suptitle()
    assert weights.shape == (2, 3)


def test_the_picture_holds_the_weights(small, example):
    batch, _ = example
    network = model()
    image = small.draw(network, batch, "title")["hops"].axes[0].images[0].get_array()
    np.testing.assert_allclose(image.T, small.evaluate(network, batch).outputs.weights[0].numpy())


def test_a_model_that_looks_nowhere_has_no_picture(small, example):
    assert small.draw(Bag(VOCAB_SIZE, NUM_ANSWERS).eval(), example[0], "title") == {}


# What is typed.


@pytest.mark.parametrize(
    "text",
    [
        "Mary got the milk.\nMary went to the garden.\nWhere is the milk?",
        "Mary got the milk. Mary went to the garden. Where is the milk?",
        "Mary got the milk\n\n  Mary went to the garden\nWhere is the milk ?\n",
        "1 Mary got the milk.\n2 Mary went to the garden.\n3 Where is the milk?",
        "1 John left.\n1 Mary got the milk.\n2 Who left? \tJohn\t1\n3 Mary went to the garden.\n4 Where is the milk?\n",
        "Mary got the milk. Who got it? Mary went to the garden. Where is the milk? She left.",
    ],
    ids=["lines", "one line", "without full stops", "numbered", "a file of stories", "other questions"],
)
def test_ways_to_type_a_story(small, text, tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(text)
    for given in (text, str(path)):
        batch = small.batch_of(given)
        sentences = [[VOCABULARY[word] for word in row] for row in batch.story[0].tolist()]
        assert [" ".join(filter(None, row)) for row in sentences] == ["mary got the milk", "mary went to the garden"]
        assert [VOCABULARY[word] for word in batch.question[0].tolist()] == ["where", "is", "the", "milk"]
        assert batch.answer.tolist() == [NULL] and batch.task.tolist() == [0]


def test_a_typed_answer_and_its_supports_are_kept(small):
    batch = small.batch_of("1 Mary got the milk.\n2 John left.\n3 Where is the milk? \tMilk,Football\t2 9\n")
    assert VOCABULARY[int(batch.answer)] == "milk,football" and batch.supports.tolist() == [[False, True]]


@pytest.mark.parametrize(
    "text, says",
    [
        ("Mary left.", "--input holds no question"),
        ("", "--input holds no question"),
        ("Where is Mary?", "--input holds no sentence before its question"),
        ("1 Mary left.\n1 Where is Mary?", "--input holds no sentence before its question"),
        ("/nowhere/story.txt", "--input holds no question"),
    ],
)
def test_what_is_no_story(small, text, says):
    with pytest.raises(ValueError, match=says):
        small.batch_of(text)


def test_a_file_that_is_no_text(small, tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes(b"J\xf6hn left. Who left?")
    with pytest.raises(ValueError, match=r"story\.txt, but that file is not valid UTF-8"):
        small.batch_of(str(path))


def test_a_long_line_is_no_file_name(small):
    text = " ".join(["Mary left."] * 1_000) + " Who left?"
    with pytest.warns(UserWarning, match="1 of 1 typed questions"):
        assert small.batch_of(text).story.shape[1] == 50


def test_typed_words_that_no_task_has_are_named(small):
    with pytest.warns(UserWarning, match="--input has words that no bAbI task has and are read as unknown: zoo, lives"):
        batch = small.batch_of("Mary is in the zoo. Who lives there?")
    assert (batch.story == UNKNOWN).sum() == 1


# Tables and commands.


def metrics_of(task, errors):
    return {
        f"test/{name}/{metric}": value
        for name, error in zip(task.test_names, errors, strict=True)
        for metric, value in {"loss": 1.0, "error_percent": error, "nats": 0.5}.items()
    }


def test_the_table_of_all_tasks_has_mean_and_failed_tasks_beside_the_papers():
    task = Babi(tasks="all")
    rows = rows_of(metrics_of(task, [float(number) for number in range(20)]), task)
    assert len(rows) == 22 and all(row.keys() == rows[0].keys() for row in rows)
    assert rows[2] == {
        "test": "3 three-supporting-facts",
        "error_percent": 2.0,
        "nats": 0.5,
        "paper 3 hops RN": 21.9,
    }
    assert rows[20]["test"] == "mean" and rows[20]["error_percent"] == 9.5 and rows[20]["paper 3 hops RN"] == 12.4
    assert rows[21]["test"] == "failed (above 5%)" and rows[21]["error_percent"] == 14
    assert rows[21]["paper 3 hops RN"] == 11 and rows[21]["nats"] == ""


def test_means_that_stand_alone_are_said_below_the_table():
    (note,) = Babi(tasks="all", size="10k").notes()
    assert "1 hop 24.5 (16)" in note and "3 hops RN" not in note
    assert Babi(tasks=3).notes() == []


def test_one_task_stands_beside_its_own_numbers_and_has_no_mean():
    task = Babi(tasks=3)
    (row,) = rows_of(metrics_of(task, [50.0]), task)
    assert {name: row[name] for name in row if name.startswith("paper")} == {
        "paper PE LS RN": 40.3,
    }


def test_one_model_for_some_of_the_tasks_is_nothing_published():
    task = Babi(tasks=[1, 2])
    rows = rows_of(metrics_of(task, [4.0, 6.0]), task)
    assert task.published() == {}
    assert [(row["test"], row["error_percent"]) for row in rows[2:]] == [("mean", 5.0), ("failed (above 5%)", 1)]


def test_published_numbers_are_of_test_sets_there_are():
    for tasks, size in itertools.product((1, "all"), ("1k", "10k")):
        task = Babi(tasks=tasks, size=size)
        assert set(task.published()) <= set(task.test_names)
        whole = [name for name, row in PUBLISHED[size, tasks == "all"].items() if row.errors]
        assert list(task.published()["1 single-supporting-fact"]) == [f"paper {name}" for name in whole]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run on two tasks."""
    folder = tmp_path_factory.mktemp("trained")
    config = {
        "model": {
            "network": {"class_path": STANDIN, "init_args": {"vocab_size": VOCAB_SIZE, "num_answers": NUM_ANSWERS}}
        },
        "data": {"class_path": "tasks.Babi", "init_args": {"tasks": [1, 15], **SMALL}},
        "trainer": {"max_steps": 4, "val_check_interval": 2, "log_every_n_steps": 2, "accelerator": "cpu"},
    }
    path = folder / "stories.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        main(["fit", "--config", str(path), "--run_dir", str(folder)])
    return folder / "stories" / "version_0"


def test_fit_writes_metrics_and_a_picture(trained):
    with open(trained / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequences"] for row in rows if row["val/error_percent"]] == ["16", "32"]
    assert {path.name for path in (trained / "plots").iterdir()} == {
        "hops_1_single_supporting_fact.png",
        "learning_curve.png",
    }


def test_test_prints_and_writes_the_tasks_their_mean_and_the_failed_ones(trained, capsys):
    main(["test", "--ckpt_path", str(trained / "checkpoints" / "last.ckpt")])
    printed = capsys.readouterr().out
    with open(trained / "test_0.csv") as file:
        rows = list(csv.DictReader(file))
    names = ["1 single-supporting-fact", "15 basic-deduction", "mean", "failed (above 5%)"]
    assert [row["test"] for row in rows] == names and all(name in printed for name in names)
    errors = [float(row["error_percent"]) for row in rows]
    assert errors[2] == pytest.approx(sum(errors[:2]) / 2) and errors[3] == sum(error > 5 for error in errors[:2])


def test_predict_answers_a_story_from_a_file_and_shows_what_it_used(trained, capsys, tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("1 Mary got the milk.\n2 Mary went to the garden.\n3 Where is the milk?\n")
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    main(["predict", "--ckpt_path", checkpoint, "--input", str(path)])
    printed = capsys.readouterr().out
    assert "  hop 1  hop 2\n" in printed and "mary went to the garden\nquestion  where is the milk?\n" in printed
    main(["predict", "--ckpt_path", checkpoint, "--examples", "2"])
    printed = capsys.readouterr().out
    assert [name in printed for name in ("1 single-supporting-fact\n", "15 basic-deduction\n")] == [True, True]
    with pytest.raises(SystemExit):
        main(["predict", "--ckpt_path", checkpoint, "--input", "Hello."])
    assert "--input holds no question" in capsys.readouterr().err


def test_plot_draws_a_typed_story(trained, tmp_path):
    text = "Mary got the milk. Where is the milk?"
    main(["plot", str(trained / "checkpoints" / "last.ckpt"), "--input", text, "--out", str(tmp_path / "out")])
    (path,) = Path(tmp_path / "out").iterdir()
    assert path.name == "input_mary_got_the_milk_where_is_the_milk_hops.png" and path.stat().st_size > 5_000
