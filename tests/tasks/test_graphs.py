"""Graph traversal and shortest path against slow answers from the inputs, their graphs, their metrics, bad input.

How a shortest path is answered, and what it costs, is in ``test_shortest_path.py``.
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from memnet import LSTM
from tasks import GraphTraversal, ShortestPath
from tasks.curriculum import Growth
from tasks.graphs import BLANK, distinct, draw_graphs, labels_of, one_hot
from tasks.sampling import Draws, stream_key
from tasks.shortest_path import distances
from tests.reference import graphs as slow

BOTH = [GraphTraversal, ShortestPath]
SMALL = {"max_nodes": 6, "max_degree": 3, "max_path": 3}
#   1 -> 2 -> 4 -> 5, 1 -> 3 -> 4, 5 -> 1, and 6 leads nowhere
OWN = [(1, 2, 7), (1, 3, 4), (2, 4, 900), (3, 4, 12), (4, 5, 7), (5, 1, 7), (2, 6, 0)]


def draws(count, first=0, seed=7):
    return Draws(stream_key(0, seed), np.arange(first, first + count))


def examples(batch):
    """Each sequence's description, query, planning steps, target and shown triples; all else must be zero."""
    for item, length in enumerate(batch.lengths.tolist()):
        steps = batch.inputs[item, :length].int().tolist()
        description, query, planning, shown = slow.phases(steps)
        counts = batch.mask[item]
        assert counts.tolist() == [length - len(shown) <= time < length for time in range(len(counts))]
        assert not batch.inputs[item, length:].any() and not batch.targets[item, ~counts].any()
        answer = [slow.triple(step) for step in batch.targets[item, counts].int().tolist()]
        yield description, query, planning, answer, shown


@pytest.mark.parametrize("settings", [{}, {"min_nodes": 2, **SMALL}, {"max_degree": 30, "max_nodes": 5}])
def test_a_traversal_goes_along_the_edges_it_is_told(settings):
    task = GraphTraversal(**settings)
    batch = task.sample(draws(60))
    lengths = Counter()
    for description, query, planning, answer, shown in examples(batch):
        slow.check_graph(description)
        assert planning == 0 and set(shown) == {(None, None, None)}
        assert slow.walk(description, query) == answer
        lengths[len(answer)] += 1
    assert set(lengths) == set(range(1, task.path_lengths[1] + 1))
    assert [part.dtype for part in batch] == [torch.float32, torch.float32, torch.bool, torch.int64]


@pytest.mark.parametrize("settings", [{}, {"min_nodes": 2, "num_planning": 0, **SMALL}, {"max_degree": 30}])
def test_a_shortest_path_is_one_of_all_there_are(settings):
    task = ShortestPath(**settings)
    several = 0
    for description, query, planning, answer, shown in examples(task.sample(draws(60))):
        slow.check_graph(description)
        ((source, goal, name),) = query
        assert name is None and planning == task.num_planning
        paths = slow.all_shortest(description, source, goal)
        assert slow.by_smallest_label(paths) == answer
        assert shown == [(None, None, None), *answer[:-1]]
        several += len(paths) > 1
    assert several > 2 or "min_nodes" in settings  # that the choice among them was seen


def test_graphs_are_nearest_neighbours_in_the_plane():
    graphs = draw_graphs(draws(40), (3, 9), (1, 4))
    points = Draws(stream_key(0, 7), np.arange(40))
    points.integers(3, 9)
    points = points.uniform(18).reshape(40, 9, 2)
    sizes = set()
    for item, count in enumerate(graphs.num_nodes):
        sizes.add(int(count))
        assert len(set(graphs.labels[item, :count].tolist())) == count
        assert not graphs.degrees[item, count:].any()
        for node in range(count):
            degree = graphs.degrees[item, node]
            assert 1 <= degree <= min(4, count - 1)
            others = [other for other in range(count) if other != node]
            others.sort(key=lambda other: math.dist(points[item, node], points[item, other]))
            assert graphs.targets[item, node, :degree].tolist() == others[:degree]
            assert len(set(graphs.edge_labels[item, node, :degree].tolist())) == degree
    assert sizes == set(range(3, 10))
    assert graphs.num_edges.tolist() == graphs.degrees.sum(1).tolist()


def test_a_description_names_every_edge_once_in_random_order():
    graphs = draw_graphs(draws(30), (5, 5), (2, 2))
    first_of_node = 0
    for item, told in enumerate(graphs.description()):
        told = [tuple(triple) for triple in told[: graphs.num_edges[item]].tolist()]
        by_node = [
            tuple(int(part) for part in graphs.triples(np.full((30, 1), node), np.full((30, 1), edge))[item, 0])
            for node in range(5)
            for edge in range(2)
        ]
        assert sorted(told) == sorted(by_node)
        first_of_node += told[0] == by_node[0]
    assert first_of_node < 15


def test_distinct_numbers_are_distinct_and_every_order_is_as_likely():
    numbers = distinct(np.random.default_rng(1).uniform(size=(6000, 2)), 3)
    counts = Counter(map(tuple, numbers.tolist()))
    assert set(counts) == set(itertools.permutations(range(3), 2))
    assert max(counts.values()) - min(counts.values()) < 200  # five standard deviations of their difference
    whole = distinct(np.random.default_rng(1).uniform(size=(50, 9)), 9)
    assert (np.sort(whole) == np.arange(9)).all()
    # Numbers next to 1 stay in range.
    assert distinct(np.full((1, 4), 1 - 2.0**-53), 4).tolist() == [[3, 2, 1, 0]]


def test_digits_are_those_of_the_labels():
    triples = np.array([[[0, 999, 37], [BLANK, 5, BLANK]]])
    channels = one_hot(triples)
    assert channels.sum() == 4 * 3
    assert np.flatnonzero(channels[0, 0]).tolist() == [0, 10, 20, 39, 49, 59, 60, 73, 87]
    assert labels_of(torch.from_numpy(channels)).tolist() == triples.tolist()


def test_distances_stop_where_they_are_told_to():
    graphs = draw_graphs(draws(20), (8, 8), (1, 2))
    all_of_them, few = distances(graphs, 7), distances(graphs, 2)
    assert (few == np.where(all_of_them <= 2, all_of_them, 0)).all()
    unreachable = 0
    for item in range(20):
        edges = [tuple(edge) for edge in graphs.description()[item, : graphs.num_edges[item]].tolist()]
        for start, end in itertools.permutations(range(8), 2):
            paths = slow.all_shortest(edges, graphs.labels[item, start], graphs.labels[item, end])
            assert all_of_them[item, start, end] == (len(paths[0]) if paths else 0)
            unreachable += not paths
    assert unreachable > 20  # that graphs without a path between some nodes were among them


def test_where_no_nodes_are_so_far_apart_the_farthest_are_asked():
    """In graphs of which every node leads to every other one there are only paths of one edge."""
    task = ShortestPath(min_nodes=4, max_nodes=4, min_degree=3, max_degree=3, min_path=2, max_path=4)
    assert all(len(answer) == 1 for _, _, _, answer, _ in examples(task.sample(draws(20))))


def test_lengths_of_paths_are_drawn_first():
    task = ShortestPath(min_nodes=20, max_nodes=20, max_degree=3, max_path=3)
    lengths = Counter(len(answer) for *_, answer, _ in examples(task.sample(draws(300))))
    assert all(60 < lengths[length] < 140 for length in (1, 2, 3))


def answered(batch, triples):
    """Logits that say these triples at the steps that count."""
    outputs = torch.zeros_like(batch.targets)
    outputs[0, batch.mask[0]] = torch.from_numpy(one_hot(np.array(triples)))
    return 9 * outputs


def failed(task, batch, triples):
    return task.score(answered(batch, triples), batch).metrics["failed_percent"].item() == 100


def test_every_shortest_path_is_a_perfect_answer():
    task = ShortestPath()
    batch = task.ask(OWN, source=1, goal=5)
    by_three, by_two = [(1, 3, 4), (3, 4, 12), (4, 5, 7)], [(1, 2, 7), (2, 4, 900), (4, 5, 7)]
    assert [slow.triple(step) for step in batch.targets[0, batch.mask[0]].int().tolist()] == by_three  # edge 4, not 7
    assert not failed(task, batch, by_three)
    assert not failed(task, batch, by_two)
    assert task.score(answered(batch, by_two), batch).metrics["wrong_digits"].item() > 0
    assert failed(task, batch, [(1, 2, 7), (3, 4, 12), (4, 5, 7)])  # does not hang together
    assert failed(task, batch, [(1, 2, 8), (2, 4, 900), (4, 5, 7)])  # no such edge
    assert failed(task, batch, [(1, 2, 7), (2, 6, 0), (2, 4, 900)])  # another end
    assert failed(task, batch, [(5, 1, 7), (1, 2, 7), (2, 4, 900)])  # another beginning
    assert failed(task, batch, [(1, 2, 7), (2, 4, 900), (4, 5, 8)])
    assert failed(task, batch, [(0, 0, 0)] * 3)


def test_an_answer_may_not_use_the_query_as_an_edge():
    """(1, 5, 000) is what the network is asked, and with blanks read as zeros it would be an edge that leads there."""
    task = ShortestPath()
    batch = task.ask([*OWN, (5, 6, 1)], source=4, goal=5)
    assert failed(task, batch, [(4, 5, 0)])
    assert not failed(task, batch, [(4, 5, 7)])


def test_a_traversal_is_perfect_only_as_a_whole():
    task = GraphTraversal()
    batch = task.ask(OWN, source=5, path=[7, 4, 12])
    right = [(5, 1, 7), (1, 3, 4), (3, 4, 12)]
    assert slow.walk(OWN, [(5, None, 7), (None, None, 4), (None, None, 12)]) == right
    assert not failed(task, batch, right)
    assert failed(task, batch, [*right[:2], (3, 4, 13)])
    assert failed(task, batch, [(5, 1, 7), (1, 2, 7), (3, 4, 12)])


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("longest, nodes, edges", [(1, 6, 1), (2, 9, 2), (3, 14, 3), (4, 18, 4), (8, 18, 4)])
def test_a_lesson_keeps_paths_and_graphs_within_its_bounds(kind, longest, nodes, edges):
    task = kind(min_nodes=6, max_nodes=18, max_path=4)
    lengths, sizes = set(), set()
    for description, _, _, answer, _ in examples(task.up_to(longest)(draws(200))):
        lengths.add(len(answer))
        sizes.add(len({source for source, _, _ in description}))
    assert lengths == set(range(1, edges + 1))
    assert (min(sizes), max(sizes)) == (6, nodes)


@pytest.mark.parametrize("kind", BOTH)
def test_a_lesson_asks_no_paths_shorter_than_the_task_does(kind):
    task = kind(min_nodes=12, max_nodes=12, max_degree=2, min_path=2, max_path=4)
    for longest, lengths in [(1, {1}), (2, {2}), (3, {2, 3})]:
        assert {len(answer) for *_, answer, _ in examples(task.up_to(longest)(draws(50)))} == lengths


@pytest.mark.parametrize("kind", BOTH)
def test_the_last_lesson_is_the_whole_task_and_validation_always_is(kind):
    task = kind(num_val=40, num_test=40)
    before = [next(iter(each)) for each in (task.val_dataloader(), *task.test_dataloader())]
    whole = next(iter(task.train_dataloader()))
    task.growth = Growth(1)
    after = [next(iter(each)) for each in (task.val_dataloader(), *task.test_dataloader())]
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(before, after, strict=True))
    assert next(iter(task.train_dataloader())).inputs.shape[1] < whole.inputs.shape[1]
    task.growth = Growth(task.path_lengths[1])
    assert all(torch.equal(*each) for each in zip(next(iter(task.train_dataloader())), whole, strict=True))


@pytest.mark.parametrize("kind", BOTH)
def test_a_lessons_examples_depend_on_their_number_alone(kind):
    sample = kind(**SMALL).up_to(2)
    whole = sample(draws(20))
    part = sample(draws(5, first=9))
    time = part.inputs.shape[1]
    assert torch.equal(part.inputs, whole.inputs[9:14, :time]) and torch.equal(part.lengths, whole.lengths[9:14])
    assert torch.equal(part.targets, whole.targets[9:14, :time])


def test_the_loss_is_the_cross_entropy_of_each_digit():
    task = GraphTraversal(batch_size=3)
    batch = next(iter(task.train_dataloader()))
    outputs = 3 * torch.randn(batch.targets.shape)
    evaluation = task.score(outputs, batch)
    nats, wrong = np.zeros(3), np.zeros(3)
    for item, time in batch.mask.nonzero().tolist():
        for digit in range(9):
            logits = outputs[item, time, 10 * digit : 10 * digit + 10].double().numpy()
            right = batch.targets[item, time, 10 * digit : 10 * digit + 10].argmax().item()
            nats[item] += np.log(np.exp(logits).sum()) - logits[right]
            wrong[item] += logits.argmax() != right
    np.testing.assert_allclose(evaluation.metrics["bits"], nats / math.log(2), rtol=1e-5)
    assert evaluation.metrics["wrong_digits"].tolist() == wrong.tolist()
    assert evaluation.loss.item() == pytest.approx(nats.mean(), rel=1e-5)
    assert evaluation.metrics["failed_percent"].tolist() == [100.0] * 3
    assert task.score(20 * batch.targets, batch).metrics["failed_percent"].tolist() == [0.0] * 3
    # What is not asked for does not count.
    changed = torch.where(batch.mask.unsqueeze(2), outputs, torch.randn_like(outputs))
    assert torch.equal(task.score(changed, batch).loss, evaluation.loss)


@pytest.mark.parametrize("kind", BOTH)
def test_an_example_is_shown(kind):
    task = kind(batch_size=2, **SMALL)
    batch = next(iter(task.train_dataloader()))
    right = task.describe(batch, 20 * batch.targets, 1)
    assert right.startswith("0.00 bits, 0 digits wrong, answered perfectly\ngraph   (")
    assert "not answered perfectly" in task.describe(batch, -20 * batch.targets, 1)
    assert right.count("_") == (1 if kind is ShortestPath else 2 * int(batch.mask[1].sum()) - 1)
    panels = task.picture(batch, 20 * batch.targets, 1)
    steps = int(batch.lengths[1])
    assert panels["input"].shape == (92, steps) and panels["output"].shape == (90, steps)
    np.testing.assert_allclose(panels["output"], panels["target"], atol=1e-5)
    model = LSTM(task.input_size, task.output_size, hidden_size=4, num_layers=1)
    assert task.draw(model, batch, "title").keys() == {"example"}


@pytest.mark.parametrize("kind", BOTH)
def test_test_sets_and_published_numbers(kind):
    task = kind(num_test=3)
    assert task.test_names[:2] == ["training distribution", f"20 nodes, {task.path_lengths[1]} edges"]
    assert set(task.published()) <= set(task.test_names)
    _, largest, *_ = task.test_dataloader()
    for description, _, _, answer, _ in examples(next(iter(largest))):
        assert len({source for source, _, _ in description}) == 20
        assert len(answer) == task.path_lengths[1] or kind is ShortestPath


class Answers(nn.Module):
    input_size, output_size = 92, 90

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(92, 90)

    def forward(self, inputs, state=None, lengths=None):
        return self.linear(inputs), None


def test_a_model_of_other_sizes_is_refused():
    GraphTraversal().check_model(Answers())
    with pytest.raises(ValueError, match="Linear has input_size None and output_size None, but GraphTraversal needs"):
        GraphTraversal().check_model(nn.Linear(92, 90))


@pytest.mark.parametrize("kind", BOTH)
def test_lightning_trains_on_it(kind, tmp_path):
    from memnet.training.experiment import Experiment

    task = kind(batch_size=2, num_val=2, num_test=2, eval_batch_size=2, **SMALL)
    trainer = pl.Trainer(
        max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(Experiment(Answers()), datamodule=task)
    assert trainer.global_step == 2


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"min_nodes": 1}, "min_nodes is 1, but must be at least 2"),
        ({"max_nodes": 1001}, "max_nodes is 1001, but there are only 1000 labels"),
        ({"min_nodes": 9, "max_nodes": 8}, "min_nodes is 9, but must not be larger than max_nodes, which is 8"),
        ({"min_degree": 0}, "min_degree is 0"),
        ({"min_degree": 5, "max_degree": 4}, "min_degree is 5, but must not be larger"),
        ({"min_path": 0}, "min_path is 0"),
        ({"max_path": 0}, "max_path is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_sizes_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_planning_may_not_be_negative():
    with pytest.raises(ValueError, match="num_planning is -1, but must be at least 0"):
        ShortestPath(num_planning=-1)


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda: ShortestPath().ask(OWN, 6, 1), "goal is 1, but no path of at least one edge leads there from node 6"),
        (lambda: ShortestPath().ask(OWN, 1, 1), "goal is 1, but no path"),
        (lambda: ShortestPath().ask(OWN, 1, 77), "goal is 77, but no path"),
        (lambda: ShortestPath().ask([], 1, 2), "edges is empty"),
        (lambda: ShortestPath().ask([(1, 2, 1000)], 1, 2), "edges holds label 1000, but labels must be from 0 to 999"),
        (lambda: GraphTraversal().ask([(-4, 2, 1)], 1, [1]), "edges holds label -4"),
        (lambda: GraphTraversal().ask(OWN, 6, [7]), "path goes from node 6 along edge 7, but the graph has 0"),
        (lambda: GraphTraversal().ask([*OWN, (1, 6, 7)], 1, [7]), "along edge 7, but the graph has 2 such edges"),
        (lambda: GraphTraversal().ask(OWN, 1, []), "path is empty"),
    ],
)
def test_questions_without_an_answer_are_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
