"""Training step of the Differentiable Neural Computer by slots.

LSTM controller of 100, rows of 20, one read and one write head, batches of 32 of the copy task with 20 vectors, 41
time steps. The floor is the link's: its matrix, slot x slot for each sequence, read twice and updated twice in each
step. (The kernel makes links anew in its backward pass, which is one more update.)
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import DNC, kernels
from memnet.bench.copying import BITS, CopyWork
from memnet.bench.floors import Passes, linear, lstm, passes_part, products_part, share
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.step import TrainingStep
from memnet.bench.timing import clock_for

HIDDEN, WIDTH = 100, 20
EMITTED = 2 * (WIDTH + 1) + 2 + 3 + 2 * WIDTH + 1
"""Keys and strengths, write gates, read modes, erase and write vector, free gate."""

WORKS = tuple(CopyWork(batch=32, length=20, slots=slots) for slots in (32, 128, 256))


def run(settings: Settings, works: Sequence[CopyWork] = WORKS) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what.
    """
    for work in works:
        yield _measure(work, settings)


def _measure(work: CopyWork, settings: Settings) -> Comparison:
    with settings.with_threads(work.threads) as threads:
        title = f"batch {work.batch}, length {work.length}, {work.slots} slots"
        settings.say(f"  {title}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = DNC(BITS + 1, BITS, num_slots=work.slots, slot_size=WIDTH, num_read_heads=1).to(settings.device)
        ways, notes = _ways(model, *work.draw(settings.device), settings)
        batch = share(work.batch, threads) if settings.device.type == "cpu" else work.batch
        floats = work.slots**2
        products = [
            *lstm(batch, work.time, BITS + 1 + WIDTH, HIDDEN, from_zeros=False),
            *linear(batch, HIDDEN, EMITTED, work.time),
            *linear(batch * work.time, HIDDEN + WIDTH, BITS),
        ]
        floor = [
            products_part(products, settings.device),
            passes_part(Passes(2 * work.time, 2 * work.time, batch * floats, floats), settings.device),
        ]
        return compare(title, ways, settings.seconds, clock_for(settings.device), floor, notes)


def _ways(model: DNC, inputs: Tensor, targets: Tensor, settings: Settings) -> tuple[list[Way], list[str]]:
    def loss_of(network: nn.Module) -> Tensor:
        outputs, _ = network(inputs)
        answers = outputs[:, -targets.shape[1] :]
        return F.binary_cross_entropy_with_logits(answers, targets, reduction="sum") / len(inputs)

    plain = TrainingStep(model, partial(loss_of, model), kernels.disabled)
    ways, notes = [Way("plain loop", plain, plain.results)], []
    if kernels.find(model.cell, inputs, model.cell.init_state(len(inputs))) is not None:
        fast = TrainingStep(model, partial(loss_of, model))
        ways.append(Way("kernel", fast, fast.results))
    else:
        notes.append("no kernel fits here, so there is only the plain loop")
    if settings.compiled:
        compiled = copy.deepcopy(model)
        compiled.compile_steps = True
        step = TrainingStep(compiled, partial(loss_of, compiled), kernels.disabled)
        ways.append(Way("compiled steps", step, step.results))
    return ways, notes
