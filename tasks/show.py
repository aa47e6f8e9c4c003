"""How an example of a bit task is shown: panels for plots and text for a terminal."""

import math
import textwrap

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .base import SequenceBatch

# With the row's label, a line stays below 80 columns.
COLUMNS = 64


def panels(batch: SequenceBatch, outputs: Float[Tensor, "batch time out"], item: int) -> dict[str, np.ndarray]:
    """Input, target, output and error of one example, each ``(channels, time)``, as in the paper's figures.

    Args:
        batch: the batch that holds the example.
        outputs: the model's logits.
        item: which example of the batch.
    """
    steps = int(batch.lengths[item])
    counts = batch.mask[item, :steps].unsqueeze(1)
    target = batch.targets[item, :steps]
    output = torch.where(counts, outputs.detach()[item, :steps].float().sigmoid(), 0.0)
    values = {
        "input": batch.inputs[item, :steps],
        "target": target,
        "output": output,
        "error": torch.where(counts, (output - target).abs(), 0.0),
    }
    return {title: value.T.cpu().numpy() for title, value in values.items()}


def text(batch: SequenceBatch, outputs: Float[Tensor, "batch time out"], item: int) -> str:
    """One example in rows of bits: a row is a channel, a column a time step.

    A dot is a 0 in the input and a step that does not count in target and output; an X is a wrong output bit. Input
    channels that hold other numbers than 0 and 1 are listed below the rows.

    Args:
        batch: the batch that holds the example.
        outputs: the model's logits.
        item: which example of the batch.
    """
    steps = int(batch.lengths[item])
    inputs, targets = batch.inputs[item, :steps].cpu(), batch.targets[item, :steps].cpu()
    logits = outputs.detach()[item, :steps].float().cpu()
    counts = batch.mask[item, :steps].cpu()
    wrong = ((logits > 0) != (targets > 0.5)) & counts.unsqueeze(1)
    nats = F.binary_cross_entropy_with_logits(logits[counts], targets[counts], reduction="sum").item()
    is_bit = ((inputs == 0) | (inputs == 1)).all(0)

    rows = {
        "input": ["".join(".1"[int(bit)] for bit in inputs[:, channel]) for channel in is_bit.nonzero().flatten()],
        "target": [_answer(targets[:, channel], counts) for channel in range(targets.shape[1])],
        "output": [
            "".join("X" if bad else bit for bad, bit in zip(wrong[:, channel], answer, strict=True))
            for channel in range(targets.shape[1])
            for answer in [_answer(logits[:, channel] > 0, counts)]
        ],
    }
    total = targets[counts].numel()
    lines = [f"{steps} steps, {nats / math.log(2):.2f} bits, {int(wrong.sum())} of {total} bits wrong"]
    for start in range(0, steps, COLUMNS):
        for title, channels in rows.items():
            labels = [title] + [""] * (len(channels) - 1)
            lines += [f"{label:<8}{row[start : start + COLUMNS]}" for label, row in zip(labels, channels, strict=True)]
        lines.append("")
    for channel in (~is_bit).nonzero().flatten().tolist():
        numbers = [f"{number:.3g}" for number in inputs[:, channel].tolist() if number != 0]
        lines += textwrap.wrap(f"input channel {channel}: {' '.join(numbers)}", 78, subsequent_indent="  ")
    return "\n".join(lines).rstrip()


def _answer(bits: Tensor, counts: Tensor) -> str:
    return "".join("01"[int(bit)] if count else "." for bit, count in zip(bits, counts, strict=True))
