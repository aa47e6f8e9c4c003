"""The shortest path task (Graves et al. 2016, "Graph tasks")."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Evaluation, SequenceBatch
from .graphs import (
    ANSWER,
    BLANK,
    NUM_DIGITS,
    NUM_LABELS,
    PHASE,
    TRIPLE_SIZE,
    Graphs,
    GraphTask,
    check_edges,
    draw_graphs,
    labels_of,
    most_probable,
    tell,
)
from .sampling import Draws, Sampler


class ShortestPath(GraphTask):
    """Find a shortest path between two nodes of a graph.

    The query is one triple, (source, destination, _), with ``_`` for the label that is not said; steps to think follow.
    The answer is the triples of a path of fewest edges from source to destination. Every such path is a perfect answer;
    the target is the one that takes at each node the edge of the smallest label among those that lead nearer. How many
    answers are wanted says how long the path is. See ``GraphTask`` for how graph, query and answer are told and what is
    measured, and ``draw_graphs`` for the graphs.

    While it answers, the network sees the edge before: in training the target's, whatever it has said itself, and else
    (validation, test, prediction) its own. So the answer goes on from a node that is told. The loss of each step is the
    cross-entropy with *any* edge that leads nearest to the destination from there, -log of the sum of their
    probabilities; where none does, after an edge that does not exist or leads astray, with the target.
    ``wrong_digits`` counts those in which the answer differs from the most similar of these edges.
    What training measures is therefore of answers that are put right after each step, and better than validation.

    Edges have a direction, so not every node can be reached from every other. Only of nodes with a path between them a
    path is asked: its length is drawn first, then a pair of nodes, all pairs so far apart being as likely. In a graph
    where no two nodes are so far apart it is the longest distance below that; 1 there always is.

    The paper gives neither code nor every size. It shows the network, in training too, its own edges mixed with those
    of a shortest path, and trains on a curriculum of growing graphs; for that there is ``memnet.training.Curriculum``,
    without which all sizes are mixed.

    Args:
        min_nodes: the smallest graph, 2 or more nodes.
        max_nodes: the largest; sizes are uniform from one to the other.
        min_degree: the fewest edges that leave a node; 1 or more.
        max_degree: the most, as far as there are other nodes; uniform for each node.
        min_path: the shortest path, in edges.
        max_path: the longest; uniform.
        num_planning: steps between query and answer, 0 or more.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``.

    Raises:
        ValueError: a size is out of its range, or a lower bound is larger than the upper one.
    """

    def __init__(
        self,
        min_nodes: int = 5,
        max_nodes: int = 20,
        min_degree: int = 2,
        max_degree: int = 4,
        min_path: int = 1,
        max_path: int = 4,
        num_planning: int = 10,
        **settings: Any,
    ) -> None:
        if num_planning < 0:
            raise ValueError(f"num_planning is {num_planning}, but must be at least 0.")
        super().__init__(min_nodes, max_nodes, min_degree, max_degree, min_path, max_path, **settings)
        self.num_planning = num_planning

    def sample(
        self, draws: Draws, num_nodes: tuple[int, int] | None = None, path: tuple[int, int] | None = None
    ) -> SequenceBatch:
        shortest, longest = path or self.path_lengths
        graphs = draw_graphs(draws, num_nodes or self.num_nodes, self.degrees)
        distance = distances(graphs, longest)
        wanted = draws.integers(shortest, longest)
        farthest = np.where(distance <= wanted[:, None, None], distance, 0).max((1, 2))
        asked = distance == farthest[:, None, None]
        pair = np.where(asked, draws.uniform(asked[0].size).reshape(asked.shape), -1.0).reshape(draws.count, -1)
        source, goal = np.divmod(pair.argmax(1), asked.shape[2])
        node, edge = _walk(graphs, distance, source, goal, longest)
        answer = graphs.triples(node, edge)
        row = np.arange(draws.count)
        ends = np.stack([graphs.labels[row, source], graphs.labels[row, goal], np.full(draws.count, BLANK)], 1)
        one = np.ones(draws.count, np.int64)
        told = tell(graphs.description(), graphs.num_edges, ends[:, None], one, answer, farthest, self.num_planning)
        return _shown(told, told.targets)

    def ask(self, edges: Sequence[tuple[int, int, int]], source: int, goal: int) -> SequenceBatch:
        """A batch of one question about a graph of one's own.

        Args:
            edges: (source, destination, edge) labels from 0 to 999, in the order of the description.
            source: where the path begins.
            goal: where it ends, another node.

        Raises:
            ValueError: a label is out of range, or no path of at least one edge leads from source to goal.
        """
        described = check_edges(edges)
        left, nearest = {goal: 0}, {goal}  # edges from a node to the goal; the nodes found last
        while nearest:
            nearest = {start for start, end, _ in edges if end in nearest and start not in left}
            left |= dict.fromkeys(nearest, 1 + max(left.values()))
        if source == goal or source not in left:
            raise ValueError(
                f"goal is {goal}, but no path of at least one edge leads there from node {source}, which is source."
            )
        path, here = [], source
        while here != goal:
            step = min((edge for edge in edges if edge[0] == here and left.get(edge[1]) == left[here] - 1), key=_label)
            path.append(step)
            here = step[1]
        query = np.array([[[source, goal, BLANK]]])
        num_edges, num_asked, num_answered = (np.array([count]) for count in (len(edges), 1, len(path)))
        told = tell(described, num_edges, query, num_asked, np.array([path]), num_answered, self.num_planning)
        return _shown(told, told.targets)

    def evaluate(self, model: nn.Module, batch: SequenceBatch) -> Evaluation:
        if model.training:
            return super().evaluate(model, batch)
        outputs = _answer(model, batch)
        return self.score(outputs, _shown(batch, most_probable(outputs)))

    def picture(self, batch: SequenceBatch, outputs: Tensor, item: int) -> dict[str, np.ndarray]:
        return super().picture(_shown(batch, most_probable(outputs)), outputs, item)

    def describe(self, batch: SequenceBatch, outputs: Tensor, item: int) -> str:
        return super().describe(_shown(batch, most_probable(outputs)), outputs, item)

    def costs(
        self, log_probs: Float[Tensor, "batch time out"], answer: Float[Tensor, "batch time out"], batch: SequenceBatch
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        right = right_edges(batch)
        astray = ~right.any(2, keepdim=True)
        given = rearrange(batch.inputs[:, :, :TRIPLE_SIZE].float(), "batch place channel -> batch channel place")
        with torch.autocast(log_probs.device.type, enabled=False):  # which would round them to eight bits
            said, alike = log_probs @ given, answer @ given
        of_edges = torch.where(right, said, -math.inf).masked_fill(astray, 0.0).logsumexp(2)
        of_target = (log_probs * batch.targets).sum(2)
        nats = -torch.where(astray.squeeze(2), of_target, of_edges)
        alike = torch.where(right, alike, 0.0).amax(2)
        alike = torch.where(astray.squeeze(2), (answer * batch.targets).sum(2), alike)
        counts = batch.mask
        return torch.where(counts, nats, 0.0).sum(1), torch.where(counts, NUM_DIGITS - alike, 0.0).sum(1)

    def perfect(self, batch: SequenceBatch, answer: Int64[Tensor, "batch time 3"]) -> Bool[Tensor, " batch"]:
        """A path of as many edges as the shortest has, all of them the graph's, from where to where it was asked."""
        counts = batch.mask
        phase = batch.inputs[:, :, PHASE].cumsum(1)
        given = labels_of(batch.inputs[:, :, :TRIPLE_SIZE])
        codes = _code(given).masked_fill(phase > 0, -1)
        there = (_code(answer).unsqueeze(2) == codes.unsqueeze(1)).any(2)
        row = torch.arange(len(given), device=given.device)
        query = _query(given, phase)
        follows = torch.ones_like(counts)
        follows[:, 1:] = (answer[:, 1:, 0] == answer[:, :-1, 1]) | ~counts[:, :-1]
        first = counts.float().argmax(1)
        last = first + counts.sum(1) - 1
        connects = (answer[row, first, 0] == query[:, 0]) & (answer[row, last, 1] == query[:, 1])
        return ((there & follows) | ~counts).all(1) & connects

    def ladder(self) -> dict[str, Sampler]:
        """The training distribution, the largest graphs with the longest paths, and paths of each length."""
        nodes, (shortest, longest) = self.num_nodes[1], self.path_lengths
        largest = partial(self.sample, num_nodes=(nodes, nodes), path=(longest, longest))
        rungs: dict[str, Sampler] = {"training distribution": self.sample, f"{nodes} nodes, {longest} edges": largest}
        for length in range(shortest, longest + 1):
            rungs[f"length {length}"] = partial(self.sample, path=(length, length))
        return rungs


def _shown(batch: SequenceBatch, answer: Float[Tensor, "batch time 90"]) -> SequenceBatch:
    """The batch with the edge before as the input of each step of the answer but the first.

    Args:
        batch: whatever it shows now.
        answer: the edges, as channels.
    """
    shown = (batch.mask[:, 1:] & batch.mask[:, :-1]).unsqueeze(2)
    inputs = batch.inputs.clone()
    inputs[:, 1:, :TRIPLE_SIZE] = torch.where(shown, answer[:, :-1], inputs[:, 1:, :TRIPLE_SIZE])
    return batch._replace(inputs=inputs)


def _answer(model: nn.Module, batch: SequenceBatch) -> Float[Tensor, "batch time 90"]:
    """A model's outputs when it sees, at each step of the answer but the first, the edge it has said before."""
    counts = batch.mask.sum(1).cpu()
    begin = batch.lengths - counts
    outputs, state = model(batch.inputs[:, : int(begin.max()) + 1], lengths=begin + 1)
    row = torch.arange(len(outputs), device=outputs.device)
    said = [outputs[row, begin.to(outputs.device)]]
    for _ in range(1, int(counts.max())):
        step = F.pad(most_probable(said[-1]), (0, 2)).to(batch.inputs.dtype)
        step[:, ANSWER] = 1
        output, state = model(step.unsqueeze(1), state)
        said.append(output[:, 0])
    answers = torch.stack(said, 1)
    whole = answers.new_zeros(*batch.mask.shape, TRIPLE_SIZE)
    wanted = torch.arange(len(said)) < counts.unsqueeze(1)
    whole[batch.mask] = answers[wanted.to(answers.device)]
    return whole


def right_edges(batch: SequenceBatch) -> Bool[Tensor, "batch time place"]:
    """Which of the described edges lead nearest to the destination from where each step of the answer goes on.

    False at all other steps, and all False where none leads there by at most as many edges as the longest answer has.

    Args:
        batch: whose inputs hold the edge before.
    """
    phase = batch.inputs[:, :, PHASE].cumsum(1)
    given = labels_of(batch.inputs[:, :, :TRIPLE_SIZE])
    query, described = _query(given, phase), phase == 0
    source, end = given[:, :, 0], given[:, :, 1]
    here = torch.where(given[:, :, 1] == BLANK, query[:, :1], given[:, :, 1])
    goes_on = (end.unsqueeze(2) == source.unsqueeze(1)) & described.unsqueeze(1)
    longest = batch.mask.sum(1).amax()
    far = len(source[0])
    left = torch.where((end == query[:, 1:2]) & described, 1, far)  # edges of a way to the destination by this one
    for _ in range(int(longest) - 1):
        after = torch.where(goes_on, left.unsqueeze(1), far).amin(2)
        left = torch.where(described, torch.minimum(left, after + 1).clamp(max=far), far)
    leaves = (here.unsqueeze(2) == source.unsqueeze(1)) & described.unsqueeze(1) & (left < far).unsqueeze(1)
    lefts = torch.where(leaves, left.unsqueeze(1), far)
    nearest = lefts.amin(2, keepdim=True)
    return leaves & (lefts == nearest) & batch.mask.unsqueeze(2)


def _query(given: Int64[Tensor, "batch time 3"], phase: Float[Tensor, "batch time"]) -> Int64[Tensor, "batch 3"]:
    return given[torch.arange(len(given), device=given.device), (phase == 1).float().argmax(1)]


def _label(edge: tuple[int, int, int]) -> int:
    return edge[2]


def _code(triples: Int64[Tensor, "*batch 3"]) -> Int64[Tensor, "*batch"]:
    """Each triple as one number; -1 only for what is no triple."""
    whole = (triples * torch.tensor([NUM_LABELS**2, NUM_LABELS, 1], device=triples.device)).sum(-1)
    return torch.where((triples == BLANK).any(-1), -2, whole)


def distances(graphs: Graphs, longest: int) -> Int64[np.ndarray, "batch node node"]:
    """How many edges lead from one node to another at least.

    0 for a node and itself, and where there is no way or only a longer one.

    Args:
        graphs: the graphs.
        longest: the largest distance of interest.
    """
    size, most, _ = graphs.targets.shape
    leads = np.zeros((size, most, most), np.float32)
    graph, node, edge = np.nonzero(np.arange(graphs.targets.shape[2]) < graphs.degrees[:, :, None])
    leads[graph, node, graphs.targets[graph, node, edge]] = 1
    distance = np.zeros((size, most, most), np.int64)
    known = np.broadcast_to(np.eye(most, dtype=bool), distance.shape).copy()
    reached = np.eye(most, dtype=np.float32)
    for length in range(1, longest + 1):
        reached = np.minimum(reached @ leads, 1)
        new = (reached > 0) & ~known
        distance[new] = length
        known |= new
    return distance


def _walk(
    graphs: Graphs, distance: np.ndarray, source: np.ndarray, goal: np.ndarray, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and the edges of each path; what follows after the goal means nothing."""
    row = np.arange(len(source))
    real = np.arange(graphs.targets.shape[2]) < graphs.degrees[:, :, None]
    nodes, edges, here = [], [], source
    for _ in range(longest):
        target = graphs.targets[row, here]
        left = distance[row, here, goal]
        nearer = (distance[row[:, None], target, goal[:, None]] == left[:, None] - 1) & real[row, here]
        # Only the goal itself is at distance 0 of what can be reached.
        nearer &= (left[:, None] > 1) | (target == goal[:, None])
        edge = np.where(nearer, graphs.edge_labels[row, here], NUM_LABELS).argmin(1)
        nodes.append(here)
        edges.append(edge)
        here = np.where(nearer.any(1), target[row, edge], here)
    return np.stack(nodes, 1), np.stack(edges, 1)
