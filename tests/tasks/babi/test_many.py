"""Many models on the bAbI tasks at once: whose questions each member sees, and which restart is reported."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from memnet import Ensemble, MemN2N
from memnet.__main__ import main
from tasks import Babi, BabiEnsemble
from tasks.babi import NUM_ANSWERS, VOCAB_SIZE

SMALL = {"num_train": 60, "num_test": 20, "batch_size": 8, "eval_batch_size": 5, "num_sentences": 20}
TASKS = [1, 15]


@pytest.fixture
def many():
    return BabiEnsemble(Babi(tasks=TASKS, **SMALL), restarts=3)


def network(**settings):
    return MemN2N(VOCAB_SIZE, num_answers=NUM_ANSWERS, num_sentences=20, **settings)


def ensemble(members=6):
    return Ensemble(network, members)


def take(loader, count):
    return list(itertools.islice(loader, count))


def questions(batch, member):
    return [
        (tuple(story[story > 0].tolist()), tuple(question[question > 0].tolist()), int(answer), int(task))
        for story, question, answer, task in zip(
            batch.story[member], batch.question[member], batch.answer[member], batch.task[member], strict=True
        )
    ]


def test_each_member_goes_through_its_own_tasks_questions(many):
    encoded, train, _ = many.train_set()
    batches = take(many.train_dataloader(), 27)  # 4 epochs of 54 questions
    assert batches[0].story.shape[:2] == (6, 8)
    seen = {m: [each for batch in batches for each in questions(batch, m)] for m in range(6)}
    for member in range(6):
        group = member // 3
        whole = encoded.batch(train[group], 20)
        everything = sorted(questions(type(whole)(*(part[None] for part in whole)), 0))
        assert {task for *_, task in seen[member]} == {TASKS[group]}
        for epoch in range(4):
            assert sorted(seen[member][54 * epoch : 54 * (epoch + 1)]) == everything
    orders = {tuple(seen[member]) for member in range(6)}
    assert len(orders) == 6  # each in an order of its own


def test_joint_members_see_all_tasks():
    many = BabiEnsemble(Babi(tasks=TASKS, **SMALL), restarts=2, joint=True)
    assert many.num_members == 2
    batches = take(many.train_dataloader(), 14)
    for member in range(2):
        assert {task for batch in batches for *_, task in questions(batch, member)} == set(TASKS)


def test_the_stream_goes_on_where_it_was_and_depends_on_the_seed(many):
    whole = take(many.train_dataloader(), 9)
    many.batches_consumed = 5
    for expected, got in zip(whole[5:], many.train_dataloader(), strict=False):
        assert all(torch.equal(*pair) for pair in zip(expected, got, strict=True))
    other = BabiEnsemble(Babi(tasks=TASKS, seed=2, **SMALL), restarts=3)
    assert questions(next(iter(other.train_dataloader())), 0) != questions(whole[0], 0)


def test_processes_share_each_members_batch(many, monkeypatch):
    whole = next(iter(many.train_dataloader()))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(BabiEnsemble, "ranks", lambda self, rank=rank: (rank, 2))
        parts.append(next(iter(many.train_dataloader())))
    for member in range(6):
        assert questions(parts[0], member) + questions(parts[1], member) == questions(whole, member)
    monkeypatch.setattr(BabiEnsemble, "ranks", lambda self: (0, 3))
    with pytest.raises(ValueError, match="batch size is 8, but must be a multiple of the 3 processes"):
        many.train_dataloader()


def test_validation_holds_each_members_questions_once(many):
    _, _, val = many.train_set()
    batches = list(many.val_dataloader())
    assert [batch.story.shape[1] for batch in batches] == [5, 1]
    for member in range(6):
        own = [each for batch in batches for each in questions(batch, member)]
        assert len(own) == len(val[member // 3]) == 6
        assert {task for *_, task in own} == {TASKS[member // 3]}


def test_loss_and_metrics_are_the_sums_and_values_of_single_models(many):
    model = ensemble().eval()
    batch = next(iter(many.val_dataloader()))
    evaluation = many.evaluate(model, batch)
    loss, metrics = torch.tensor(0.0), {"error_percent": [], "nats": []}
    for number in range(6):
        own = many.babi.evaluate(model.member(number), type(batch)(*(part[number] for part in batch)))
        loss = loss + own.loss
        for name, values in own.metrics.items():
            metrics[name].append(values)
    torch.testing.assert_close(evaluation.loss, loss)
    for name, values in metrics.items():
        torch.testing.assert_close(evaluation.metrics[name], torch.cat(values), rtol=1e-4, atol=1e-5)


def spoil(model, members):
    """The answers of these members become those of no task."""
    with torch.no_grad():
        for member in members:
            model.network.words[-1][member] = 0


def trained(many, model, steps=150):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for batch in take(many.train_dataloader(), steps):
        optimizer.zero_grad()
        many.evaluate(model, batch).loss.backward()
        optimizer.step()
    return model.eval()


def test_the_restart_with_the_lowest_training_error_is_reported(many):
    model = trained(many, ensemble())
    spoil(model, [0, 2, 3, 4])
    assert many.chosen(model) == [1, 2]
    for number, (name, loader) in enumerate(zip(many.test_names, many.test_dataloader(), strict=True)):
        assert str(TASKS[number]) in name
        (batch,) = loader
        assert batch.story.shape[0] == 20
        metrics = many.evaluate(model, batch).metrics
        errors = []
        for restart in range(3):
            logits = model.member(3 * number + restart)(batch.story, batch.question)
            errors.append(100 * (logits.argmax(1) != batch.answer).float())
        torch.testing.assert_close(metrics["error_percent"], errors[many.chosen(model)[number]])
        torch.testing.assert_close(metrics["all_percent"].mean(), torch.stack(errors).mean())
        spread = torch.stack([error.mean() for error in errors]).std(unbiased=False)
        torch.testing.assert_close(metrics["std_percent"].mean(), spread)
        assert spread > 1


def test_among_restarts_without_errors_the_lowest_loss_decides(many, monkeypatch):
    scores = iter([(3.0, 0.1), (2.0, 0.5), (2.0, 0.4), (1.0, 9.0), (0.0, 8.0), (0.0, 9.0)])
    monkeypatch.setattr(BabiEnsemble, "_training_error", lambda *arguments: next(scores))
    assert many.chosen(ensemble()) == [2, 1]


def test_training_error_counts_all_training_questions(many):
    model = ensemble().eval()
    encoded, train, _ = many.train_set()
    member = model.member(4)
    batch = encoded.batch(train[1], 20)
    logits = member(batch.story, batch.question)
    errors, loss = many._training_error(member, encoded, train[1])
    assert errors == int((logits.argmax(1) != batch.answer).sum())
    assert loss == pytest.approx(float(F.cross_entropy(logits, batch.answer, reduction="sum").detach()), rel=1e-4)


def test_a_typed_story_needs_one_task(many):
    text = "Mary went to the office.\nWhere is Mary?"
    with pytest.raises(ValueError, match="has models of 2 tasks and cannot know which"):
        many.batch_of(text)
    one = BabiEnsemble(Babi(tasks=1, **SMALL), restarts=2)
    evaluation = one.evaluate(ensemble(2).eval(), one.batch_of(text))
    assert "where is mary" in one.describe(one.batch_of(text), evaluation.outputs, 0)
    with pytest.raises(ValueError, match=r"the questions are of tasks \[2\], but .* 1, 15"):
        many.evaluate(ensemble().eval(), next(iter(Babi(tasks=2, **SMALL).val_dataloader())))


def test_networks_that_do_not_fit_are_refused(many):
    many.check_model(ensemble())
    with pytest.raises(ValueError, match=r"is a MemN2N, but 3 restarts on 2 sets of questions .* 6 members"):
        many.check_model(network())
    with pytest.raises(ValueError, match="an Ensemble of 5, but"):
        many.check_model(ensemble(5))
    with pytest.raises(ValueError, match="vocab_size"):
        many.check_model(Ensemble(lambda: MemN2N(20), 6))
    with pytest.raises(ValueError, match="restarts is 0"):
        BabiEnsemble(Babi(**SMALL), restarts=0)


def test_the_papers_rows_are_those_of_one_model_for_each_task(many):
    alone, joint = Babi(tasks=1, **SMALL), BabiEnsemble(Babi(tasks="all", **SMALL), joint=True)
    assert many.published()["1 single-supporting-fact"] == alone.published()["1 single-supporting-fact"]
    assert joint.published() == joint.babi.published()
    rows = [{"test": name, "error_percent": 4.0 + 3 * n, "all_percent": 9.0} for n, name in enumerate(many.test_names)]
    mean, failed = many.summary(rows)
    assert (mean["error_percent"], mean["all_percent"]) == (5.5, 9.0)
    assert (failed["error_percent"], failed["all_percent"]) == (1, 2)


CONFIG = """
seed_everything: 1
model:
  network:
    class_path: memnet.Ensemble
    init_args:
      num_members: 4
      network:
        class_path: memnet.MemN2N
        init_args: {vocab_size: 178, num_sentences: 20, embedding_size: 5, num_answers: 62}
  optimizer: {class_path: memnet.ClippedSGD, init_args: {lr: 0.01, num_members: 4}}
data:
  class_path: tasks.BabiEnsemble
  init_args:
    restarts: 2
    babi:
      class_path: tasks.Babi
      init_args: {tasks: [1, 15], num_train: 60, num_test: 20, batch_size: 8, num_sentences: 20}
trainer: {max_steps: 4, val_check_interval: 2, log_every_n_steps: 2, accelerator: cpu}
"""


def test_every_command_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many.yaml").write_text(CONFIG)
    main(["fit", "--config", "many.yaml"])
    last = "runs/many/version_0/checkpoints/last.ckpt"
    capsys.readouterr()
    main(["test", "--ckpt_path", last])
    table = capsys.readouterr().out
    assert all(word in table for word in ("1 single", "15 basic", "all_percent", "std_percent", "failed"))
    main(["predict", "--ckpt_path", last, "--examples", "4"])
    assert capsys.readouterr().out.count("question") == 4
    main(["plot", last])
    assert (tmp_path / "runs/many/version_0/plots/hops_15_basic_deduction.png").is_file()
