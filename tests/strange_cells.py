"""Cells whose step a test writes itself."""

from typing import NamedTuple

import torch
from torch import Tensor

from memnet import Cell


class CountState(NamedTuple):
    total: Tensor


class Strange(Cell):
    """A cell whose step is ``body``."""

    def __init__(self, body):
        super().__init__()
        self.input_size = self.output_size = 1
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.body, self.seen = body, []

    def init_state(self, batch_size):
        return CountState(torch.zeros(batch_size, 1))

    def forward(self, x, state):
        return self.body(self, x, state)
