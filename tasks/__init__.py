"""Tasks: where the examples come from, what the loss is, and how an example is shown."""

from .associative_recall import AssociativeRecall
from .babi import Babi, BabiEnsemble
from .base import Evaluation, SequenceBatch, Task
from .copy import Copy
from .date import Date
from .graph_traversal import GraphTraversal
from .ngrams import NGrams
from .one_shot import OneShot
from .pair_set import PairBatch
from .pairs import PairTask
from .priority_sort import PrioritySort
from .repeat_copy import RepeatCopy
from .shortest_path import ShortestPath
from .translation import Translation
from .vector_sort import VectorSort

__all__ = [
    "AssociativeRecall",
    "Babi",
    "BabiEnsemble",
    "Copy",
    "Date",
    "Evaluation",
    "GraphTraversal",
    "NGrams",
    "OneShot",
    "PairBatch",
    "PairTask",
    "PrioritySort",
    "RepeatCopy",
    "SequenceBatch",
    "ShortestPath",
    "Task",
    "Translation",
    "VectorSort",
]
