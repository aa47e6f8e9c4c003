"""Training step of a cell without a kernel, plain and compiled.

The copy task and sizes of ``ntm``, but the heads look for slots by the dot product of a key and then move: one of the
many schemes that only the plain loop and ``compile_steps`` can run. Compiling takes up to a minute a row.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import NTM
from memnet.addressing import Addressing, ContentAddressing, LocationAddressing
from memnet.bench.copying import BITS, CopyWork
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.step import TrainingStep
from memnet.bench.timing import clock_for
from memnet.scores import DotScore

WORKS = (CopyWork(batch=1, length=20), CopyWork(batch=32, length=20))


def run(settings: Settings, works: Sequence[CopyWork] = WORKS) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what.
    """
    for work in works:
        with settings.with_threads(work.threads) as threads:
            title = f"batch {work.batch}, length {work.length}" + (
                f", {threads} threads" if threads > 1 else ", 1 thread"
            )
            settings.say(f"  {title}")
            ways, notes = _those_that_work(ways_of(work, settings.device))
            yield compare(title, ways, settings.seconds, clock_for(settings.device), notes=notes)


def ways_of(work: CopyWork, device: torch.device) -> list[Way]:
    """The plain loop and the compiled step, with the same weights.

    Args:
        work: what to learn from.
        device: where.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        plain = NTM(
            BITS + 1, BITS, work.slots, read_addressing=_by_dot_product(), write_addressing=_by_dot_product()
        ).to(device)
    compiled = copy.deepcopy(plain)
    compiled.compile_steps = True
    inputs, targets = work.draw(device)

    def loss_of(network: nn.Module) -> Tensor:
        outputs, _ = network(inputs)
        answers = outputs[:, -targets.shape[1] :]
        return F.binary_cross_entropy_with_logits(answers, targets, reduction="sum") / len(inputs)

    found = []
    for name, network in (("plain loop", plain), ("compiled steps", compiled)):
        step = TrainingStep(network, partial(loss_of, network))
        found.append(Way(name, step, step.results))
    return found


def _those_that_work(ways: list[Way]) -> tuple[list[Way], list[str]]:
    """Without the compiled step where it takes the plain loop, and a note why."""
    plain, compiled = ways
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled.run()
    notes = [str(each.message) for each in caught if "memnet cannot compile" in str(each.message)]
    return ([plain] if notes else ways), notes


def _by_dot_product() -> Addressing:
    return LocationAddressing(ContentAddressing(DotScore(20)))
