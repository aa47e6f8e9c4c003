"""The bAbI task: its arguments, its sets and streams, loss and metrics."""

import itertools
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.nn import functional as F

from tasks import Babi, Task
from tasks.babi import NAMES, NUM_ANSWERS, VOCAB_SIZE, StoryBatch, generate
from tasks.babi import task as module
from tasks.babi.names import file_name
from tasks.babi.vocabulary import IDS, NULL, UNKNOWN
from tests.tasks.babi.standin import Bag, TwoHops

SMALL = {"num_train": 60, "num_test": 20, "batch_size": 8, "eval_batch_size": 7}


@pytest.fixture
def small():
    return Babi(**SMALL)


@pytest.fixture
def files(tmp_path):
    """Tasks 1 and 15 as files, with 40 training and 10 test questions; generated, which is as good here."""
    for task, (split, count) in itertools.product((1, 15), {"train": 40, "test": 10}.items()):
        lines, index = [], 0
        while sum("\t" in line for line in lines) < count:
            story = generate(task, 7 if split == "train" else 8, index)
            both = [(each.id, each.text) for each in story.sentences]
            both += [
                (each.id, f"{each.text} \t{each.answer}\t{' '.join(map(str, each.supports))}")
                for each in story.questions
            ]
            lines += [f"{number} {text}" for number, text in sorted(both)]
            index += 1
        path = tmp_path / "en" / file_name(task, split)
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return tmp_path


def take(loader, count):
    return list(itertools.islice(loader, count))


def questions(batches):
    """Every question of some batches as a comparable value, without padding."""
    return [
        (
            tuple(words for row in story if any(row) for words in row if words),
            tuple(filter(None, question)),
            answer,
            task,
        )
        for batch in batches
        for story, question, answer, _, task in zip(*(part.tolist() for part in batch), strict=True)
    ]


def on_rank(task, rank, num_ranks):
    task.trainer = SimpleNamespace(global_rank=rank, world_size=num_ranks)
    return task


def model(**changes):
    return TwoHops(**{"vocab_size": VOCAB_SIZE, "num_answers": NUM_ANSWERS} | changes).eval()


# Arguments.


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"tasks": 0}, "tasks is 0, but the tasks are numbered from 1 to 20"),
        ({"tasks": [1, 21]}, "tasks is 21"),
        ({"tasks": True}, "tasks is True"),
        ({"tasks": [3, 3]}, r"tasks is \[3, 3\], but must name at least one task, and each once"),
        ({"tasks": []}, r"tasks is \[\]"),
        ({"tasks": "some"}, "tasks is 'some', but must be a task's number, several numbers, or all"),
        ({"size": "100k"}, "size is '100k', but must be one of 1k, 10k"),
        ({"download": True}, "download is True, but folder is not given"),
        ({"num_train": 0}, "num_train is 0"),
        ({"num_val": -1}, "num_val is -1"),
        ({"num_test": 0}, "num_test is 0"),
        ({"num_sentences": 0}, "num_sentences is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"tasks": [1, 2], "generated": [3]}, r"generated is \[3\], but task 3 is none of the tasks, \[1, 2\]"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says) as caught:
        Babi(**arguments)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given, chosen", [("7", (7,)), ("[2, 19]", (2, 19)), ("all", tuple(range(1, 21)))], ids=["one", "several", "all"]
)
def test_tasks_from_a_command_line(given, chosen):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=Task)
    arguments = ["--data", "tasks.Babi", "--data.tasks", given, "--data.size", "10k"]
    task = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert task.tasks == chosen and task.size == "10k"
    assert task.test_names == [f"{number} {NAMES[number - 1]}" for number in chosen]


def test_a_task_survives_pickling(small):
    first = questions(take(small.train_dataloader(), 3))
    assert questions(take(pickle.loads(pickle.dumps(small)).train_dataloader(), 3)) == first


@pytest.mark.parametrize("changes", [{"vocab_size": 177}, {"num_answers": 61}, {"num_answers": VOCAB_SIZE + 1}])
def test_models_of_other_sizes_are_refused(small, changes):
    with pytest.raises(ValueError, match="but Babi needs vocab_size 178 and num_answers from 62 to 178"):
        small.check_model(model(**changes))
    small.check_model(model())
    small.check_model(model(num_answers=VOCAB_SIZE))
    with pytest.raises(ValueError, match="Linear has vocab_size None"):
        small.check_model(torch.nn.Linear(1, 1))


# Streams.


def test_an_epoch_is_every_training_question_once(small):
    assert small.epoch_size == 54
    encoded, train, val = small.train_set()
    assert train.tolist() == list(range(54)) and val.tolist() == list(range(54, 60))
    # 27 batches of 8 are four epochs of 54.
    seen = questions(take(small.train_dataloader(), 27))
    own = questions([encoded.batch(train, 50)])
    epochs = [seen[start : start + 54] for start in range(0, 216, 54)]
    assert all(sorted(epoch) == sorted(own) for epoch in epochs)
    assert all(one != other for one, other in itertools.combinations([own, *epochs], 2))


def test_the_order_depends_on_the_seed_and_nothing_else(small):
    same, other = Babi(**SMALL), Babi(**SMALL, seed=2)
    first = questions(take(small.train_dataloader(), 4))
    assert questions(take(same.train_dataloader(), 4)) == first
    assert questions(take(other.train_dataloader(), 4)) != first


def test_questions_of_a_story_can_follow_one_another(small):
    encoded, items, _ = small.train_set()
    by_story = Babi(**SMALL, by_story=True)
    epoch = by_story.train_dataloader()._schedule.items(0)
    assert len(epoch) == SMALL["batch_size"]
    order = np.concatenate([by_story.train_dataloader()._schedule.items(batch) for batch in range(14)])[: len(items)]
    stories = encoded.starts[items][order]
    assert len(list(itertools.groupby(stories))) == len(set(stories.tolist())) > 5
    assert stories.tolist() != sorted(stories.tolist())
    plain, together = (questions(take(task.train_dataloader(), 27)) for task in (small, by_story))  # 4 epochs of 54
    assert sorted(plain) == sorted(together) and plain != together


def test_resume_continues_exactly(small):
    whole = take(small.train_dataloader(), 20)
    for consumed in (1, 6, 7, 13):
        rest = Babi(**SMALL)
        rest.batches_consumed = consumed
        assert questions(take(rest.train_dataloader(), 20 - consumed)) == questions(whole[consumed:])


def test_two_ranks_make_the_batch_of_one_process(small):
    parts = [on_rank(Babi(**SMALL), rank, 2) for rank in range(2)]
    for loader in ("train_dataloader", "val_dataloader"):
        whole = take(getattr(small, loader)(), 9)
        halves = [take(getattr(part, loader)(), 9) for part in parts]
        for batch, first, second in zip(whole, *halves, strict=True):
            assert questions([first]) + questions([second]) == questions([batch])
    with pytest.raises(ValueError, match="the batch size is 8, but must be a multiple of the 3 processes"):
        on_rank(Babi(**SMALL), 0, 3).train_dataloader()


def test_fixed_sets_are_the_same_each_time_and_for_every_seed(small):
    other = Babi(**SMALL | {"batch_size": 3}, seed=9)
    (tests,), (others,) = small.test_dataloader(), other.test_dataloader()
    assert len(tests) == 3 and [len(batch.answer) for batch in tests] == [7, 7, 6]
    assert questions(tests) == questions(tests) == questions(others)
    assert questions(small.val_dataloader()) == questions(small.val_dataloader())
    assert len(questions(small.val_dataloader())) == 6
    # Task 1 has few stories that are alike.
    train = questions([small.train_set()[0].batch(np.arange(60), 50)])
    assert not set(questions(tests)) & set(train[10:]) and train != questions(
        [other.train_set()[0].batch(np.arange(60), 50)]
    )


def test_sizes_are_the_papers():
    task = Babi(tasks=20)
    _, train, val = task.train_set()
    assert (len(train), len(val), len(task.test_set(20)[1])) == (900, 100, 1_000)
    assert len(Babi(tasks=20, size="10k").train_set()[1]) == 9_000
    small = Babi(tasks=20, num_val=7)
    assert [len(part) for part in small.train_set()[1:]] == [993, 7]


def test_joint_training_holds_out_the_last_tenth_of_each_task():
    task = Babi(tasks=[4, 1, 19], **SMALL)
    encoded, _, val = task.train_set()
    assert task.epoch_size == 3 * 54 and len(val) == 18
    assert encoded.tasks[val].tolist() == [4] * 6 + [1] * 6 + [19] * 6
    for place, number in enumerate((4, 1, 19)):
        alone = Babi(tasks=number, **SMALL)
        joint = encoded.batch(val[6 * place : 6 * place + 6], 50)
        assert questions([joint]) == questions(alone.val_dataloader())
        assert questions(task.test_dataloader()[place]) == questions(alone.test_dataloader()[0])
    mixed = take(task.train_dataloader(), 3)
    assert all(len(set(batch.task.tolist())) > 1 for batch in mixed)
    assert [number for *_, number in questions(task.predict_dataloader())] == [4, 1, 19, 4, 1, 19, 4]


def test_stories_longer_than_the_memory_are_cut_and_counted():
    task = Babi(tasks=[1, 20], num_sentences=4, **SMALL)
    with pytest.warns(UserWarning) as caught:
        batches = take(task.train_dataloader(), 14)
    (said,) = [str(each.message) for each in caught]
    whole = Babi(tasks=[1, 20], **SMALL).train_set()[0].batch(np.arange(120), 50)
    longer = int(((whole.story != 0).any(2).sum(1) > 4).sum())
    assert 0 < longer < 120
    assert said.startswith(
        f"{longer} of 120 training questions (task 1, 20) have more than num_sentences = 4 sentences"
    )
    assert max(batch.story.shape[1] for batch in batches) == 4
    with pytest.warns(UserWarning, match=r"20 test questions \(task 1\) have more than num_sentences = 4"):
        task.test_set(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.test_set(1)


# Genuine files.


def test_genuine_files_take_the_place_of_generated_ones(files):
    task = Babi(tasks=[1, 15], folder=str(files), batch_size=8)
    encoded, train, val = task.train_set()
    counts = [int((encoded.tasks == number).sum()) for number in (1, 15)]
    assert min(counts) >= 40 and len(train) + len(val) == sum(counts)
    assert len(val) == sum(round(count / 10) for count in counts)
    one = Babi(tasks=1, folder=str(files / "en"), num_train=20, num_test=5)
    assert (one.epoch_size, len(one.test_set(1)[1])) == (18, 5)


def test_a_folder_with_too_little_is_refused(files):
    with pytest.raises(ValueError, match=r"there is no qa2_two-supporting-facts_test\.txt in it, its en or"):
        Babi(tasks=2, folder=str(files)).test_dataloader()
    with pytest.raises(ValueError, match=r"num_train is 1000, but task 1 has only 4\d such questions"):
        Babi(tasks=1, folder=str(files), num_train=1_000).train_dataloader()
    with pytest.raises(ValueError, match="num_test is 99, but task 15 has only"):
        Babi(tasks=15, folder=str(files), num_test=99).test_dataloader()
    with pytest.raises(ValueError, match="task 1 has 20 training questions, of which 20 are for validation"):
        Babi(tasks=1, folder=str(files), num_train=20, num_val=20).train_dataloader()


def test_training_questions_may_be_generated_where_a_file_is_missing(files):
    (files / "en" / file_name(15, "train")).unlink()
    given = Babi(tasks=[1, 15], folder=str(files), generated=[15], num_train=40)
    told = Babi(tasks=15, num_train=40)
    encoded, train, val = given.train_set()
    (start,) = np.flatnonzero(np.diff(encoded.tasks)) + 1
    expected, own_train, own_val = told.train_set()
    places = np.arange(40)
    assert questions([encoded.batch(start + places, 50)]) == questions([expected.batch(places, 50)])
    assert [len(train), len(val)] == [2 * len(own_train), 2 * len(own_val)]
    genuine = Babi(tasks=15, folder=str(files)).test_dataloader()[0]
    assert questions(given.test_dataloader()[1]) == questions(genuine) != questions(told.test_dataloader()[0])


def test_only_what_is_needed_is_read(files):
    (files / "en" / file_name(1, "train")).unlink()
    assert len(questions(Babi(tasks=1, folder=str(files)).test_dataloader()[0])) >= 10


def test_the_archive_is_fetched_when_told_and_only_if_files_are_missing(files, monkeypatch):
    fetched = []
    monkeypatch.setattr(module, "download_archive", fetched.append)
    Babi(tasks=1, folder=str(files), download=True).train_dataloader()
    assert fetched == []
    with pytest.raises(ValueError, match="there is no qa2"):
        Babi(tasks=2, folder=str(files)).prepare_data() or Babi(tasks=2, folder=str(files)).train_dataloader()
    assert fetched == []
    Babi(tasks=[1, 2], folder=str(files), download=True).prepare_data()
    assert fetched == [str(files)]


def test_all_genuine_tasks_are_read(genuine_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Babi(tasks="all", folder=str(genuine_folder))
        encoded, train, val = task.train_set()
        assert (encoded.num_questions, len(train), len(val)) == (20_000, 18_000, 2_000)
        assert [len(task.test_set(number)[1]) for number in task.tasks] == [1_000] * 20
        assert len(encoded.unknown) == 0


# Loss and metrics.


def test_loss_and_metrics_are_the_formulas(small):
    batch = take(small.train_dataloader(), 1)[0]
    logits = 3 * torch.randn(8, NUM_ANSWERS)
    evaluation = small.evaluate(lambda_model(logits), batch)
    probability = logits.double().numpy()
    probability = np.exp(probability) / np.exp(probability).sum(1, keepdims=True)
    nats = -np.log(probability[np.arange(8), batch.answer.numpy()])
    # float32 exponentials of numbers around 3
    np.testing.assert_allclose(evaluation.metrics["nats"], nats, rtol=1e-5)
    np.testing.assert_allclose(evaluation.loss, nats.sum(), rtol=1e-5)
    wrong = probability.argmax(1) != batch.answer.numpy()
    assert wrong.any()
    np.testing.assert_array_equal(evaluation.metrics["error_percent"], 100.0 * wrong)
    assert evaluation.metrics.keys() == {"error_percent", "nats"} and small.monitor in evaluation.metrics


def lambda_model(logits):
    class Fixed(torch.nn.Module):
        def forward(self, story, question):
            return logits

    return Fixed()


def test_the_loss_means_the_same_for_a_part_of_a_batch(small):
    """It is the sum over a whole batch; over a part, as large as if all the batch were like it."""
    batch = take(small.train_dataloader(), 1)[0]
    network = model()
    whole = small.evaluate(network, batch).loss
    halves = [
        small.evaluate(network, StoryBatch(*(part[start : start + 4] for part in batch))).loss for start in (0, 4)
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)
    torch.testing.assert_close(
        whole, F.cross_entropy(network(batch.story, batch.question), batch.answer, reduction="sum")
    )


def test_an_unknown_answer_is_never_right(small):
    batch = take(small.train_dataloader(), 1)[0]
    logits = torch.zeros(8, NUM_ANSWERS)
    logits[:, UNKNOWN] = 9
    unknown = batch._replace(answer=torch.full((8,), UNKNOWN))
    assert small.evaluate(lambda_model(logits), unknown).metrics["error_percent"].tolist() == [100.0] * 8
    logits[:, IDS["garden"]] = 99
    right = batch._replace(answer=torch.full((8,), IDS["garden"]))
    assert small.evaluate(lambda_model(logits), right).metrics["error_percent"].tolist() == [0.0] * 8


def test_weights_are_recorded_for_a_person_only(small):
    batch = next(iter(small.val_dataloader()))
    network = model()
    outputs = small.evaluate(network, batch).outputs
    assert outputs.weights.shape == (6, 2, batch.story.shape[1])
    torch.testing.assert_close(outputs.weights.sum(2), torch.ones(6, 2))
    assert not (outputs.weights * ~(batch.story != NULL).any(2).unsqueeze(1)).any()
    assert not outputs.weights.requires_grad
    evaluation = small.evaluate(network.train(), batch)
    assert evaluation.outputs.weights is None and evaluation.loss.requires_grad
    torch.testing.assert_close(evaluation.outputs.logits, outputs.logits)
    assert small.evaluate(Bag(VOCAB_SIZE, NUM_ANSWERS).eval(), batch).outputs.weights is None
    for predicting in (False, True):
        small.trainer = SimpleNamespace(global_rank=0, world_size=1, predicting=predicting)
        assert (small.evaluate(network.eval(), batch).outputs.weights is not None) == predicting


def test_weights_on_slots_without_a_sentence_are_kept_apart(small):
    batch = next(iter(small.val_dataloader()))
    assert batch.story.shape[1] == 10
    weights = small.evaluate(model(num_sentences=50), batch).outputs.weights
    assert weights.shape == (6, 2, 50) and bool((weights[:, :, 10:] > 0).all())


def test_a_model_with_too_small_a_memory_is_refused(small):
    small.check_model(model(num_sentences=50))
    with pytest.raises(ValueError, match="TwoHops has num_sentences 49, but Babi gives it stories of up to num_sen"):
        small.check_model(model(num_sentences=49))
    Babi(num_sentences=49).check_model(model(num_sentences=49))
