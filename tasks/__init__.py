"""Tasks: where the examples come from, what the loss is, and how an example is shown."""

from .associative_recall import AssociativeRecall
from .babi import Babi, BabiEnsemble
from .base import Evaluation, SequenceBatch, Task
from .copy import Copy
from .date import Date
from .ngrams import NGrams
from .pair_set import PairBatch
from .pairs import PairTask
from .priority_sort import PrioritySort
from .repeat_copy import RepeatCopy
from .translation import Translation

__all__ = [
    "AssociativeRecall",
    "Babi",
    "BabiEnsemble",
    "Copy",
    "Date",
    "Evaluation",
    "NGrams",
    "PairBatch",
    "PairTask",
    "PrioritySort",
    "RepeatCopy",
    "SequenceBatch",
    "Task",
    "Translation",
]
