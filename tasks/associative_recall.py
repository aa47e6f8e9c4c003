"""The associative recall task (Graves et al. 2014, section 4.3)."""

from functools import partial
from typing import Any

import numpy as np

from memnet.checks import check_not_negative, check_positive

from .base import SequenceBatch, check_order
from .curriculum import GrowingTask
from .sampling import Draws, Sampler
from .sequence import SequenceTask, place, to_batch


class AssociativeRecall(GrowingTask, SequenceTask):
    """Shown a list of items and then one of them again, answer with the item that followed it in the list.

    An item is ``item_length`` random bit vectors, with an item delimiter to its left and to its right. Neighbours share
    the delimiter between them, as in the paper's figure 12. Time steps for n items of three vectors, with ``|`` for the
    item delimiter and ``?`` for the query delimiter, each alone on its channel::

        | 1 1 1 | 2 2 2 | ... | n n n | ? q q q ? . . .

    q is one of the items but the last, all equally likely; at the steps marked by dots there is no input, and the
    target is item q + 1. So n items take 4 n + 9 steps. Input channels: ``num_bits``, item delimiter, query delimiter.
    Output channels: ``num_bits``.

    Args:
        min_items: the fewest items, 2 or more.
        max_items: the most; their number is uniform from one to the other.
        item_length: vectors of an item.
        num_bits: bits of a vector.
        full_until: so many training sequences, the stream's first, hold ``max_items`` items each. In a list of two the
            answer is always the last item, in one of three every other time; a network that has found so much does not
            look for more. Validation and test stay as they are.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``.

    Raises:
        ValueError: a size is below 1, min_items is below 2 or larger than max_items, or full_until is negative.
    """

    def __init__(
        self,
        min_items: int = 2,
        max_items: int = 6,
        item_length: int = 3,
        num_bits: int = 6,
        full_until: int = 0,
        **settings: Any,
    ) -> None:
        check_positive("min_items", min_items)
        check_positive("max_items", max_items)
        check_positive("item_length", item_length)
        check_positive("num_bits", num_bits)
        check_order(min_items=min_items, max_items=max_items)
        if min_items < 2:
            raise ValueError(f"min_items is {min_items}, but must be at least 2 for an item to follow another.")
        check_not_negative("full_until", full_until)
        super().__init__(**settings)
        self.input_size = num_bits + 2
        self.output_size = num_bits
        self.min_items = min_items
        self.max_items = max_items
        self.item_length = item_length
        self.num_bits = num_bits
        self.full_until = full_until

    def train_sample(self, draws: Draws) -> SequenceBatch:
        return self.sample(draws, full_until=self.full_until)

    def sample(self, draws: Draws, num_items: tuple[int, int] | None = None, full_until: int = 0) -> SequenceBatch:
        fewest, most = num_items or (self.min_items, self.max_items)
        number = np.where(draws.indices < full_until, most, draws.integers(fewest, most))
        query = draws.integers(0, number - 2)
        items = draws.bits(most, self.item_length, self.num_bits)
        row = np.arange(draws.count)
        item_delimiter, query_delimiter = self.num_bits, self.num_bits + 1

        blocks = np.zeros((draws.count, most, 1 + self.item_length, self.input_size), np.float32)
        blocks[:, :, 0, item_delimiter] = 1
        blocks[:, :, 1:, : self.num_bits] = items
        question = np.zeros((draws.count, self.item_length + 2, self.input_size), np.float32)
        question[:, [0, -1], query_delimiter] = 1
        question[:, 1:-1, : self.num_bits] = items[row, query]

        close = number * (1 + self.item_length)
        answer = close + 1 + self.item_length + 2
        steps = answer + self.item_length
        inputs = np.zeros((draws.count, steps.max(), self.input_size), np.float32)
        targets = np.zeros((draws.count, steps.max(), self.output_size), np.float32)
        place(blocks.reshape(draws.count, -1, self.input_size), close, into=inputs, start=0)
        inputs[row, close, item_delimiter] = 1
        place(question, self.item_length + 2, into=inputs, start=close + 1)
        mask = place(items[row, query + 1], self.item_length, into=targets, start=answer)
        return to_batch(inputs, targets, mask, steps)

    def up_to(self, longest: int) -> Sampler:
        if self.full_until:
            raise ValueError(
                f"full_until is {self.full_until}, but must be 0 beside a Curriculum, which begins with short lists."
            )
        return partial(self.sample, num_items=(self.min_items, max(self.min_items, longest)))

    def ladder(self) -> dict[str, Sampler]:
        """The numbers of items of the paper's figure 11."""
        return {f"{items} items": partial(self.sample, num_items=(items, items)) for items in (6, 10, 15, 20)}

    def published(self) -> dict[str, dict[str, float]]:
        """Wrong bits per sequence, read off the paper's figure 11."""
        lstm, feedforward = (0.0, 1.7, 4.7, 6.9), (0.0, 0.1, 1.4, 7.9)
        return {
            name: {"wrong_bits, paper NTM-LSTM": with_lstm, "wrong_bits, paper NTM-feedforward": with_feedforward}
            for name, with_lstm, with_feedforward in zip(self.test_names, lstm, feedforward, strict=True)
        }
