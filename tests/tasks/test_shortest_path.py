"""How a shortest path is answered: what the network sees meanwhile, which edges are right, what an answer costs."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from memnet import DNC, LSTM, LSTMController, record
from tasks import ShortestPath
from tasks.graphs import labels_of, most_probable, one_hot
from tasks.sampling import Draws, stream_key
from tasks.shortest_path import right_edges
from tests.reference import graphs as slow

#   1 -> 2 -> 4 -> 5, 1 -> 3 -> 4, 5 -> 1, and 6 leads nowhere
OWN = [(1, 2, 7), (1, 3, 4), (2, 4, 900), (3, 4, 12), (4, 5, 7), (5, 1, 7), (2, 6, 0)]
BY_TWO, BY_THREE = [(1, 2, 7), (2, 4, 900), (4, 5, 7)], [(1, 3, 4), (3, 4, 12), (4, 5, 7)]


class Says(nn.Module):
    """Says some triples one after the other, whatever it is told, and keeps its inputs."""

    input_size, output_size = 92, 90

    def __init__(self, triples, begin):
        super().__init__()
        self.channels = torch.from_numpy(one_hot(np.array([[(0, 0, 0)] * begin + triples])))
        self.told = []

    def forward(self, inputs, state=None, lengths=None):
        step = 0 if state is None else state
        self.told.append(inputs)
        after = step + inputs.shape[1]
        return 9 * self.channels[:, step:after].expand(len(inputs), -1, -1), after


def answering(task, triples):
    """What it sees at the steps of the answer, and what the task makes of it; in training and else."""
    batch = task.ask(OWN, source=1, goal=5)
    model = Says(triples, int(batch.lengths[0]) - 3)
    found = []
    for mode in (True, False):
        model.train(mode)
        model.told.clear()
        evaluation = task.evaluate(model, batch)
        told = torch.cat(model.told, 1)[0]
        assert torch.equal(told[:, 90:], batch.inputs[0, :, 90:]) and told[-3:, 91].tolist() == [1, 1, 1]
        assert torch.equal(told[:-3], batch.inputs[0, :-3])
        found.append(([slow.triple(step) for step in told[-3:].int().tolist()], evaluation))
    return found


NOTHING = (None, None, None)


def test_in_training_the_network_sees_the_targets_edges_and_else_its_own():
    wrong = [(7, 8, 9), (4, 2, 0), (9, 9, 9)]
    (shown, _), (own, evaluation) = answering(ShortestPath(), wrong)
    assert shown == [NOTHING, *BY_THREE[:2]]
    assert own == [NOTHING, *wrong[:2]]
    assert [tuple(each) for each in labels_of(evaluation.outputs[0, -3:]).tolist()] == wrong


def test_another_shortest_path_costs_nothing_when_the_network_sees_that_it_goes_there():
    (_, trained), (own, evaluation) = answering(ShortestPath(), BY_TWO)
    assert own == [NOTHING, *BY_TWO[:2]]
    assert evaluation.metrics["wrong_digits"].item() == 0 and evaluation.metrics["failed_percent"].item() == 0
    # Three times nine digits, each right by 9 nats.
    assert evaluation.metrics["bits"].item() == pytest.approx(27 * math.log2(1 + 9 * math.exp(-9)), rel=1e-3)
    # After (1, 3, 4), which it was shown in training, (2, 4, 900) goes on from another node.
    assert trained.metrics["wrong_digits"].item() == 1 + 3


def test_an_answer_is_shown_as_the_network_gave_it():
    task = ShortestPath()
    batch = task.ask(OWN, source=1, goal=5)
    outputs = torch.zeros_like(batch.targets)
    outputs[0, batch.mask[0]] = 20 * torch.from_numpy(one_hot(np.array(BY_TWO)))
    assert task.describe(batch, outputs, 0).startswith("0.00 bits, 0 digits wrong, answered perfectly\n")
    shown = torch.from_numpy(task.picture(batch, outputs, 0)["input"].T[-3:])
    assert [slow.triple(step) for step in shown.int().tolist()] == [NOTHING, *BY_TWO[:2]]


@pytest.mark.parametrize("kind", ["lstm", "dnc"])
def test_step_by_step_is_what_the_whole_sequence_gives(kind):
    """Given what it said itself, the network answers in one call what it has answered step by step."""
    torch.manual_seed(1)
    controller = partial(LSTMController, hidden_size=8)
    model = LSTM(92, 90, 8, 1) if kind == "lstm" else DNC(92, 90, 8, 4, 1, controller=controller)
    settings = {"min_nodes": 12, "max_nodes": 13, "max_degree": 2, "max_path": 3, "num_planning": 2}
    task = ShortestPath(num_val=12, eval_batch_size=12, **settings)
    batch = next(iter(task.val_dataloader()))
    assert len(set(batch.lengths.tolist())) > 3 and len(set(batch.mask.sum(1).tolist())) > 1
    with torch.no_grad():
        outputs = task.evaluate(model.eval(), batch).outputs
        assert not outputs[~batch.mask].any()
        own = batch.inputs.clone()
        for item, time in batch.mask.nonzero().tolist():
            if batch.mask[item, time - 1]:
                own[item, time, :90] = most_probable(outputs[item, time - 1])
        whole, _ = model(own, lengths=batch.lengths)
    torch.testing.assert_close(outputs[batch.mask], whole[batch.mask], rtol=1e-4, atol=1e-5)


def standing(batch, item, time):
    """The described edges, where the answer's step goes on, and where it shall end."""
    description, ((source, goal, _),), _, shown = slow.phases(batch.inputs[item, : batch.lengths[item]].int().tolist())
    before = shown[time - int(batch.mask[item].float().argmax())]
    return description, source if before == NOTHING else before[1], goal


def right(batch, item, time):
    description, here, goal = standing(batch, item, time)
    paths = slow.all_shortest(description, here, goal) if here != goal else around(description, goal)
    return {path[0] for path in paths if len(path) <= int(batch.mask.sum(1).max())}


def around(edges, goal):
    """The shortest ways from the goal back to it."""
    ways = [[out, *rest] for out in edges if out[0] == goal for rest in slow.all_shortest(edges, out[1], goal)]
    return [way for way in ways if len(way) == min(map(len, ways))]


def astray():
    """A batch of which some steps go on from any node of the graph, and some from none."""
    batch = ShortestPath(max_nodes=8, max_path=3).sample(Draws(stream_key(0, 7), np.arange(60)))
    random = np.random.default_rng(1)
    for item, time in batch.mask.nonzero().tolist():
        if batch.mask[item, time - 1] and random.random() < 0.7:
            described = int((batch.inputs[item, :, 90].cumsum(0) == 0).sum())
            batch.inputs[item, time, :90] = batch.inputs[item, random.integers(described), :90]
            if random.random() < 0.2:
                batch.inputs[item, time, :90] = torch.from_numpy(one_hot(np.array([1, 1, 1])))
    return batch


def test_right_edges_are_those_that_lead_nearest_from_where_the_answer_stands():
    batch = astray()
    found = right_edges(batch)
    assert not found[~batch.mask].any()
    counts = []
    for item, time in batch.mask.nonzero().tolist():
        places = found[item, time].nonzero()[:, 0].tolist()
        edges = {slow.triple(batch.inputs[item, place].int().tolist()) for place in places}
        assert edges == right(batch, item, time)
        counts.append(len(edges))
    assert min(counts) == 0 and max(counts) > 1


def test_the_loss_is_that_of_any_right_edge_and_of_the_target_where_there_is_none():
    task, batch = ShortestPath(max_nodes=8, max_path=3), astray()
    torch.manual_seed(1)
    outputs = (3 * torch.randn(batch.targets.shape)).requires_grad_()
    evaluation = task.score(outputs, batch)
    nats, wrong = np.zeros(len(outputs)), np.zeros(len(outputs))
    for item, time in batch.mask.nonzero().tolist():
        probs = outputs[item, time].detach().double().reshape(9, 10).softmax(1).numpy()
        edges = right(batch, item, time) or {slow.triple(batch.targets[item, time].int().tolist())}
        digits = [[int(digit) for name in edge for digit in f"{name:03d}"] for edge in edges]
        nats[item] -= np.log(sum(np.prod(probs[range(9), each]) for each in digits))
        wrong[item] += min((probs.argmax(1) != each).sum() for each in digits)
    np.testing.assert_allclose(evaluation.metrics["bits"].detach(), nats / math.log(2), rtol=1e-5)
    assert evaluation.metrics["wrong_digits"].tolist() == wrong.tolist()
    assert evaluation.loss.item() == pytest.approx(nats.mean(), rel=1e-5)
    evaluation.loss.backward()
    assert outputs.grad.isfinite().all() and not outputs.grad[~batch.mask].any()
    assert (outputs.grad[batch.mask].abs().sum(1) > 0).all()
    # What is not asked for does not count.
    changed = torch.where(batch.mask.unsqueeze(2), outputs, torch.randn_like(outputs))
    assert torch.equal(task.score(changed, batch).loss, evaluation.loss)


def test_every_length_has_a_test_set():
    task = ShortestPath(min_nodes=15, max_degree=3, min_path=2, max_path=3, num_test=20)
    assert task.test_names == ["training distribution", "20 nodes, 3 edges", "length 2", "length 3"]
    for length, batches in zip((2, 3), task.test_dataloader()[2:], strict=True):
        assert all(batch.mask.sum(1).tolist() == [length] * len(batch.mask) for batch in batches)


@pytest.mark.parametrize("way", ["autocast", "bfloat16"])
def test_costs_are_computed_in_float32(way):
    """Log-probabilities of -50 or so, rounded to the eight bits of a bfloat16, would be off by tenths."""
    task, batch = ShortestPath(max_nodes=8, max_path=3), astray()
    torch.manual_seed(1)
    outputs = (9 * torch.randn(batch.targets.shape)).bfloat16().float()
    expected = task.score(outputs, batch)
    if way == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = task.score(outputs, batch)
    else:
        halved = batch._replace(inputs=batch.inputs.bfloat16(), targets=batch.targets.bfloat16())
        found = task.score(outputs.bfloat16(), halved)
    for name, values in expected.metrics.items():
        torch.testing.assert_close(found.metrics[name], values)


def test_a_picture_of_the_weights_has_as_many_steps_as_the_example():
    model = DNC(92, 90, 8, 4, 1, controller=partial(LSTMController, hidden_size=8)).eval()
    task = ShortestPath()
    batch = task.ask(OWN, source=1, goal=5)
    with record(model) as trace, torch.no_grad():
        task.evaluate(model, batch)
    assert {weights.shape[1] for weights in trace.values()} == {int(batch.lengths[0])}


def test_certain_answers_far_off_have_finite_gradients():
    task = ShortestPath()
    batch = next(iter(task.train_dataloader()))
    outputs = (1e4 * torch.randn(batch.targets.shape)).requires_grad_()
    loss = task.score(outputs, batch).loss
    loss.backward()
    assert loss.isfinite() and outputs.grad.isfinite().all()
