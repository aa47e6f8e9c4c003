"""The graph traversal task (Graves et al. 2016, "Graph tasks")."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from torch import Tensor

from .base import SequenceBatch
from .graphs import BLANK, GraphTask, check_edges, draw_graphs, labels_of, tell
from .sampling import Draws, Sampler


class GraphTraversal(GraphTask):
    """Walk through a graph along given edges, and say where every edge leads.

    The query is a path: (source, _, edge) for its first edge and (_, _, edge) for each other one, with ``_`` for a
    label that is not said. The answer is the path's triples, one for each of the query's. The path is a random walk:
    the first node and each edge are uniform among those there are, so it may go over an edge twice. See ``GraphTask``
    for how graph, query and answer are told and what is measured, and ``draw_graphs`` for the graphs.

    The paper gives neither code nor every size; it trains on a curriculum of growing graphs, here all sizes are mixed.

    Args:
        min_nodes: the smallest graph, 2 or more nodes.
        max_nodes: the largest; sizes are uniform from one to the other.
        min_degree: the fewest edges that leave a node; 1 or more.
        max_degree: the most, as far as there are other nodes; uniform for each node.
        min_path: the shortest path, in edges.
        max_path: the longest; uniform.
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
        max_path: int = 7,
        **settings: Any,
    ) -> None:
        super().__init__(min_nodes, max_nodes, min_degree, max_degree, min_path, max_path, **settings)

    def sample(
        self, draws: Draws, num_nodes: tuple[int, int] | None = None, path: tuple[int, int] | None = None
    ) -> SequenceBatch:
        shortest, longest = path or self.path_lengths
        graphs = draw_graphs(draws, num_nodes or self.num_nodes, self.degrees)
        length = draws.integers(shortest, longest)
        choice = draws.uniform(1 + longest)
        row = np.arange(draws.count)
        node = np.empty((draws.count, longest + 1), np.int64)
        edge = np.empty((draws.count, longest), np.int64)
        node[:, 0] = (choice[:, 0] * graphs.num_nodes).astype(np.int64)
        for step in range(longest):
            here = node[:, step]
            edge[:, step] = (choice[:, step + 1] * graphs.degrees[row, here]).astype(np.int64)
            node[:, step + 1] = graphs.targets[row, here, edge[:, step]]
        answer = graphs.triples(node[:, :-1], edge)
        return tell(graphs.description(), graphs.num_edges, _query(answer), length, answer, length)

    def ask(self, edges: Sequence[tuple[int, int, int]], source: int, path: Sequence[int]) -> SequenceBatch:
        """A batch of one question about a graph of one's own.

        Args:
            edges: (source, destination, edge) labels from 0 to 999, in the order of the description.
            source: where the path begins.
            path: the labels of its edges.

        Raises:
            ValueError: a label is out of range, the path is empty, or it goes along an edge that is not there or not
                the only one of its label.
        """
        described = check_edges(edges)
        if not path:
            raise ValueError("path is empty, but must name at least one edge.")
        walked, here = [], source
        for label in path:
            found = [edge for edge in edges if edge[0] == here and edge[2] == label]
            if len(found) != 1:
                raise ValueError(
                    f"path goes from node {here} along edge {label}, but the graph has {len(found)} such edges, and "
                    "must have one."
                )
            walked.append(found[0])
            here = found[0][1]
        answer = np.array([walked])
        count = np.array([len(path)])
        return tell(described, np.array([len(edges)]), _query(answer), count, answer, count)

    def perfect(self, batch: SequenceBatch, answer: Int64[Tensor, "batch time 3"]) -> Bool[Tensor, " batch"]:
        right = (answer == labels_of(batch.targets)).all(2)
        return (right | ~batch.mask).all(1)

    def ladder(self) -> dict[str, Sampler]:
        """The training distribution, and the largest graphs with the longest paths."""
        return {"training distribution": self.sample, **self._hardest()}

    def _hardest(self) -> dict[str, Sampler]:
        nodes, path = self.num_nodes[1], self.path_lengths[1]
        return {f"{nodes} nodes, {path} edges": partial(self.sample, num_nodes=(nodes, nodes), path=(path, path))}

    def published(self) -> dict[str, dict[str, float]]:
        """Of the last lesson of the paper's curriculum, whose graphs are others than these."""
        return {
            name: {"failed_percent, paper DNC": 1.2, "failed_percent, paper LSTM": 63.0} for name in self._hardest()
        }


def _query(answer: Int64[np.ndarray, "batch edge 3"]) -> Int64[np.ndarray, "batch edge 3"]:
    query = answer.copy()
    query[:, :, 1] = BLANK
    query[:, 1:, 0] = BLANK
    return query
