"""Random labelled graphs, and questions about them told digit by digit (Graves et al. 2016, "Graph tasks").

The paper is "Hybrid computing using a neural network with dynamic external memory", Nature 538,
https://www.nature.com/articles/nature20101.
"""

import abc
import math
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from memnet.checks import check_positive

from . import show
from .base import Evaluation, SequenceBatch, check_order
from .curriculum import GrowingTask
from .sampling import Draws, Sampler
from .sequence import place, to_batch

NUM_LABELS = 1000
"""Nodes and edges are called by numbers below this, of three digits."""

BLANK = -1
"""In a triple, a label that is not said: none of its digits' channels is 1."""

_DIGITS, _VALUES, _PARTS = 3, 10, 3
NUM_DIGITS = _PARTS * _DIGITS
"""Of a triple."""
TRIPLE_SIZE = NUM_DIGITS * _VALUES
"""Channels of a triple: 90."""
PHASE, ANSWER = TRIPLE_SIZE, TRIPLE_SIZE + 1
"""The channels beside a triple's: 1 at the first step of each phase but the first; 1 where an answer is wanted."""


class Graphs(NamedTuple):
    """Random directed graphs.

    Attributes:
        labels: each node's label; nodes beyond ``num_nodes`` do not exist.
        num_nodes: how many nodes each graph has.
        targets: where each node's edges lead, the shortest edge first.
        edge_labels: of the same edges.
        degrees: how many edges leave each node; 0 for nodes that do not exist.
        order: the edges in the order of the description, as numbers node * (most edges of a node) + edge.
        num_edges: how many there are.
    """

    labels: Int64[np.ndarray, "batch node"]
    num_nodes: Int64[np.ndarray, " batch"]
    targets: Int64[np.ndarray, "batch node edge"]
    edge_labels: Int64[np.ndarray, "batch node edge"]
    degrees: Int64[np.ndarray, "batch node"]
    order: Int64[np.ndarray, "batch place"]
    num_edges: Int64[np.ndarray, " batch"]

    def description(self) -> Int64[np.ndarray, "batch place 3"]:
        """The triples of all edges, in the order of the description; ``num_edges`` of each row count."""
        return self.triples(*np.divmod(self.order, self.targets.shape[2]))

    def triples(self, node: np.ndarray, edge: np.ndarray) -> Int64[np.ndarray, "batch number 3"]:
        """Some edges as (source, destination, edge) labels.

        Args:
            node: where the edges begin, ``(batch, number)``.
            edge: which of the node's edges, ``(batch, number)``.
        """
        row = np.arange(len(node))[:, None]
        target = self.targets[row, node, edge]
        return np.stack([self.labels[row, node], self.labels[row, target], self.edge_labels[row, node, edge]], 2)


def draw_graphs(draws: Draws, num_nodes: tuple[int, int], degrees: tuple[int, int]) -> Graphs:
    """Graphs in the plane: every node has edges to its nearest neighbours.

    Nodes are points of the unit square. For each node a number of edges is drawn, which lead to so many nodes nearest
    to it, or to all others where there are not so many. Labels of nodes are different numbers from 0 to 999, and so are
    the labels of the edges that leave one node.

    Args:
        draws: the graphs' random numbers.
        num_nodes: the smallest and the largest number of nodes.
        degrees: the smallest and the largest number of edges that leave a node.
    """
    most, widest = num_nodes[1], min(degrees[1], num_nodes[1] - 1)
    count = draws.integers(*num_nodes)
    exists = np.arange(most) < count[:, None]
    points = draws.uniform(2 * most).reshape(-1, most, 2)
    distances = ((points[:, :, None] - points[:, None]) ** 2).sum(3)
    distances[:, np.arange(most), np.arange(most)] = np.inf
    distances = np.where(exists[:, None], distances, np.inf)
    targets = np.argsort(distances, axis=2, kind="stable")[:, :, :widest]
    wanted = degrees[0] + (draws.uniform(most) * (degrees[1] - degrees[0] + 1)).astype(np.int64)
    degree = np.where(exists, np.minimum(wanted, count[:, None] - 1), 0)
    labels = distinct(draws.uniform(most), NUM_LABELS)
    edge_labels = distinct(draws.uniform(most * widest).reshape(-1, most, widest), NUM_LABELS)
    real = (np.arange(widest) < degree[:, :, None]).reshape(draws.count, -1)
    order = np.argsort(np.where(real, draws.uniform(most * widest), 2.0), axis=1, kind="stable")
    return Graphs(labels, count, targets, edge_labels, degree, order, real.sum(1))


def distinct(uniform: Float[np.ndarray, "*row number"], below: int) -> Int64[np.ndarray, "*row number"]:
    """Different whole numbers in random order, every choice as likely.

    Args:
        uniform: random numbers from U[0, 1), one for each.
        below: numbers are from 0 to less than this.
    """
    chosen = np.empty(uniform.shape, np.int64)
    for place_ in range(uniform.shape[-1]):
        # A number of those that are left: each smaller one that is gone moves it up by one.
        left = (uniform[..., place_] * (below - place_)).astype(np.int64)
        gone = np.sort(chosen[..., :place_], axis=-1)
        for earlier in range(place_):
            left += left >= gone[..., earlier]
        chosen[..., place_] = left
    return chosen


def one_hot(triples: Int64[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 90"]:
    """The digits of labels, each on ten channels of which one is 1; all 0 for ``BLANK``.

    Args:
        triples: labels from 0 to 999, or ``BLANK``.
    """
    digits = triples[..., None] // np.array([100, 10, 1]) % _VALUES
    hot = (digits[..., None] == np.arange(_VALUES)) & (triples != BLANK)[..., None, None]
    return hot.reshape(*triples.shape[:-1], TRIPLE_SIZE).astype(np.float32)


def labels_of(channels: Float[Tensor, "*batch 90"]) -> Int64[Tensor, "*batch 3"]:
    """The labels that triples' channels say, by the largest channel of each digit; those of a blank are ``BLANK``.

    Args:
        channels: of triples, or a model's logits for them.
    """
    values = rearrange(channels, "... (part digit value) -> ... part digit value", part=_PARTS, digit=_DIGITS)
    labels = (values.argmax(-1) * torch.tensor([100, 10, 1], device=channels.device)).sum(-1)
    return torch.where((values != 0).any(-1).any(-1), labels, BLANK)


def most_probable(outputs: Float[Tensor, "*batch 90"]) -> Float[Tensor, "*batch 90"]:
    """The triples that a model says, as channels: 1 for the most probable value of each digit.

    Args:
        outputs: logits.
    """
    digits = rearrange(outputs, "... (digit value) -> ... digit value", value=_VALUES)
    chosen = F.one_hot(digits.argmax(-1), _VALUES).float()
    return rearrange(chosen, "... digit value -> ... (digit value)")


class GraphTask(GrowingTask):
    """Questions about a graph that has been described edge by edge.

    A triple is (source, destination, edge): the labels of an edge's two nodes and its own, each three digits, each
    digit ten channels. The graph is described by the triples of all its edges in random order; the query follows, then
    steps to think if the task has such, and as many steps as the answer has triples, at which the target is these.
    Neither has an input, unless the task shows what was answered before.
    Input channels: 90 for a triple; one that is 1 at the first step of query, planning and answer; one that is 1 where
    an answer is wanted. Output channels: the 90 of a triple.

    The loss is the cross-entropy of the softmax over each digit's ten channels, summed over a sequence and averaged
    over the batch. Metrics of a sequence: ``bits``, the same cross-entropy in bits; ``wrong_digits``, how many of the
    target's nine digits a triple are not the most probable ones; ``failed_percent``, 0 where the query is answered
    perfectly, else 100, so that its mean is the percentage of queries that are not.

    In a curriculum (``memnet.training.Curriculum``) what grows is the longest path, in edges, and with it the largest
    graph, which has of ``max_nodes`` the share that the longest path has of ``max_path``.

    Args:
        min_nodes: the smallest graph, 2 or more nodes.
        max_nodes: the largest; sizes are uniform from one to the other.
        min_degree: the fewest edges that leave a node; 1 or more.
        max_degree: the most, as far as there are other nodes; uniform for each node.
        min_path: the shortest path asked for, in edges.
        max_path: the longest; uniform.
        **settings: batch sizes, numbers of sequences and seed, as for ``StreamTask``.

    Raises:
        ValueError: a size is out of its range, or a lower bound is larger than the upper one.
    """

    monitor: ClassVar[str] = "failed_percent"
    curve: ClassVar[tuple[str, str]] = ("failed_percent", "queries not answered perfectly, %")
    input_size = TRIPLE_SIZE + 2
    output_size = TRIPLE_SIZE

    def __init__(
        self,
        min_nodes: int,
        max_nodes: int,
        min_degree: int,
        max_degree: int,
        min_path: int,
        max_path: int,
        **settings: Any,
    ) -> None:
        bounds = {"min_degree": min_degree, "max_degree": max_degree, "min_path": min_path, "max_path": max_path}
        for name, size in ({"min_nodes": min_nodes, "max_nodes": max_nodes} | bounds).items():
            check_positive(name, size)
        check_order(min_nodes=min_nodes, max_nodes=max_nodes)
        check_order(min_degree=min_degree, max_degree=max_degree)
        check_order(min_path=min_path, max_path=max_path)
        if min_nodes < 2:
            raise ValueError(f"min_nodes is {min_nodes}, but must be at least 2 for there to be an edge.")
        if max_nodes > NUM_LABELS:
            raise ValueError(f"max_nodes is {max_nodes}, but there are only {NUM_LABELS} labels of three digits.")
        super().__init__(**settings)
        self.num_nodes = (min_nodes, max_nodes)
        self.degrees = (min_degree, max_degree)
        self.path_lengths = (min_path, max_path)

    @abc.abstractmethod
    def perfect(self, batch: SequenceBatch, answer: Int64[Tensor, "batch time 3"]) -> Bool[Tensor, " batch"]:
        """Which queries are answered perfectly.

        Args:
            batch: the batch.
            answer: what was answered at each step, labels; it counts where the batch's mask says.
        """

    @abc.abstractmethod
    def sample(
        self, draws: Draws, num_nodes: tuple[int, int] | None = None, path: tuple[int, int] | None = None
    ) -> SequenceBatch:
        """Samples of the training distribution, or of smaller or larger graphs and shorter or longer paths.

        Args:
            draws: the samples' random numbers, and nothing else random.
            num_nodes: the smallest and the largest graph, in nodes; the task's own by default.
            path: the shortest and the longest path, in edges; the task's own by default.
        """

    def up_to(self, longest: int) -> Sampler:
        """Samples with paths of up to so many edges, in graphs of as large a share of the most nodes.

        Args:
            longest: edges, 1 or more; beyond ``max_path`` nothing grows.
        """
        (least, most), (shortest, farthest) = self.num_nodes, self.path_lengths
        longest = min(longest, farthest)
        nodes = max(least, -(-most * longest // farthest))
        return partial(self.sample, num_nodes=(least, nodes), path=(min(shortest, longest), longest))

    def costs(
        self, log_probs: Float[Tensor, "batch time out"], answer: Float[Tensor, "batch time out"], batch: SequenceBatch
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Each sequence's cross-entropy, in nats, and how many of its digits are wrong.

        Args:
            log_probs: the log-probability of each value of each digit.
            answer: 1 for the most probable value of each digit.
            batch: the batch.
        """
        return -(log_probs * batch.targets).sum((1, 2)), ((1 - answer) * batch.targets).sum((1, 2))

    def score(self, outputs: Float[Tensor, "batch time out"], batch: SequenceBatch, extra: bool = True) -> Evaluation:
        digits = rearrange(outputs.float(), "batch time (digit value) -> batch time digit value", value=_VALUES)
        log_probs = rearrange(digits.log_softmax(-1), "batch time digit value -> batch time (digit value)")
        nats, wrong = self.costs(log_probs, most_probable(outputs), batch)
        with torch.no_grad():
            metrics = {
                "bits": nats / math.log(2),
                "wrong_digits": wrong,
                "failed_percent": torch.where(self.perfect(batch, labels_of(outputs)), 0.0, 100.0),
            }
        return Evaluation(nats.mean(), metrics, outputs)

    def picture(self, batch: SequenceBatch, outputs: Tensor, item: int) -> dict[str, np.ndarray]:
        digits = rearrange(outputs.float(), "batch time (digit value) -> batch time digit value", value=_VALUES)
        # The panels put logits through a sigmoid; of these it makes the softmax.
        logits = rearrange(digits.softmax(-1).logit(1e-6), "batch time digit value -> batch time (digit value)")
        return show.panels(batch, logits, item)

    def describe(self, batch: SequenceBatch, outputs: Tensor, item: int) -> str:
        single = SequenceBatch(*(part[item : item + 1].cpu() for part in batch))
        outputs = outputs.detach()[item : item + 1].cpu()
        score = {name: float(each[0]) for name, each in self.score(outputs, single).metrics.items()}
        phase = single.inputs[0, :, PHASE].cumsum(0)
        given, counts = labels_of(single.inputs[0, :, :TRIPLE_SIZE]), single.mask[0]
        query = (phase == 1) & ~counts & (given != BLANK).any(1)
        rows = {
            "graph": given[: int((phase == 0).sum())],
            "query": given[query],
            "target": labels_of(single.targets[0, counts]),
            "answer": labels_of(outputs[0, counts]),
        }
        head = f"{score['bits'] + 0.0:.2f} bits, {int(score['wrong_digits'])} digits wrong, "
        lines = [head + ("answered perfectly" if score["failed_percent"] == 0 else "not answered perfectly")]
        for title, triples in rows.items():
            told = " ".join("(" + ",".join(_said(label) for label in triple) + ")" for triple in triples.tolist())
            lines += textwrap.wrap(f"{title:<8}{told}", 78, subsequent_indent=" " * 8)
        return "\n".join(lines)


def _said(label: int) -> str:
    return "_" if label == BLANK else f"{label:03d}"


def tell(
    description: Int64[np.ndarray, "batch edge 3"],
    num_edges: Int64[np.ndarray, " batch"],
    query: Int64[np.ndarray, "batch asked 3"],
    num_asked: Int64[np.ndarray, " batch"],
    answer: Int64[np.ndarray, "batch answered 3"],
    num_answered: Int64[np.ndarray, " batch"],
    num_planning: int = 0,
) -> SequenceBatch:
    """Graphs, queries and answers as sequences.

    Args:
        description: the graphs' triples, of which the first ``num_edges`` count, and so for the others.
        num_edges: how many there are.
        query: the queries' triples.
        num_asked: how many there are.
        answer: the right answers' triples.
        num_answered: how many there are.
        num_planning: steps between query and answer.
    """
    begin = num_edges + num_asked + num_planning
    steps = begin + num_answered
    size, row = len(steps), np.arange(len(steps))
    inputs = np.zeros((size, steps.max(), TRIPLE_SIZE + 2), np.float32)
    targets = np.zeros((size, steps.max(), TRIPLE_SIZE), np.float32)
    place(one_hot(description), num_edges, into=inputs, start=0)
    place(one_hot(query), num_asked, into=inputs, start=num_edges)
    for first in (num_edges, num_edges + num_asked, begin):
        inputs[row, first, PHASE] = 1
    mask = place(one_hot(answer), num_answered, into=targets, start=begin)
    inputs[..., ANSWER] = mask
    return to_batch(inputs, targets, mask, steps)


def check_edges(edges: Sequence[tuple[int, int, int]]) -> Int64[np.ndarray, "1 edge 3"]:
    """The description of one graph of somebody's own.

    Args:
        edges: (source, destination, edge) labels.

    Raises:
        ValueError: there is no edge, or a label is not from 0 to 999.
    """
    described = np.array(edges, np.int64).reshape(1, -1, _PARTS)
    if not described.size:
        raise ValueError("edges is empty, but a graph must have at least one edge.")
    low, high = int(described.min()), int(described.max())
    if low < 0 or high >= NUM_LABELS:
        raise ValueError(
            f"edges holds label {low if low < 0 else high}, but labels must be from 0 to {NUM_LABELS - 1}."
        )
    return described
