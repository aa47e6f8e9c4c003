"""That sparse access memory learns: copy, sequences of 1 to 5 vectors."""

from itertools import islice

import pytest
import torch

from memnet import SAM
from tasks import Copy

CHANCE = 3 * 8
"""Bits of a sequence of mean length 3 and 8 bits a vector."""


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_copy_is_learned():
    torch.manual_seed(1)
    task = Copy(max_length=5, batch_size=16)
    model = SAM(task.input_size, task.output_size, num_slots=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    bits = []
    for batch in islice(task.train_dataloader(), 700):
        evaluation = task.evaluate(model, batch)
        optimizer.zero_grad()
        evaluation.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        bits.append(evaluation.metrics["bits"].mean())
    # Seed 1 has come to 1.5 bits by then; a quarter of chance leaves room for rounding's own luck.
    assert torch.stack(bits[-100:]).mean() < CHANCE / 4
