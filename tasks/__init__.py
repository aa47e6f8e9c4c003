"""Tasks: where the examples come from, what the loss is, and how an example is shown."""

from .associative_recall import AssociativeRecall
from .base import Evaluation, SequenceBatch, Task
from .copy import Copy
from .ngrams import NGrams
from .priority_sort import PrioritySort
from .repeat_copy import RepeatCopy

__all__ = [
    "AssociativeRecall",
    "Copy",
    "Evaluation",
    "NGrams",
    "PrioritySort",
    "RepeatCopy",
    "SequenceBatch",
    "Task",
]
