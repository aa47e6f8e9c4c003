"""A training step of the standard Neural Turing Machine on the copy task, in all the ways that there are."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import NTM, kernels
from memnet.bench.floors import ntm_passes, ntm_products, passes_part, products_part, share
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.step import TrainingStep
from memnet.bench.timing import clock_for
from memnet.kernels.ntm_cell import sizes_of

BITS = 8


@dataclass(frozen=True)
class CopyWork:
    """Sequences of one length: so many vectors of 8 bits, a delimiter, and as many steps for the answer.

    Attributes:
        batch: how many sequences.
        length: vectors of a sequence.
        slots: of the memory.
        threads: how many the work gets on a CPU unless the command line says otherwise.
    """

    batch: int
    length: int
    slots: int = 128
    threads: int = 1

    @property
    def time(self) -> int:
        """Time steps."""
        return 2 * self.length + 1

    def draw(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs ``(batch, time, 9)`` and targets ``(batch, length, 8)``."""
        targets = torch.randint(2, (self.batch, self.length, BITS), generator=torch.Generator().manual_seed(1)).float()
        inputs = torch.zeros(self.batch, self.time, BITS + 1)
        inputs[:, : self.length, :BITS] = targets
        inputs[:, self.length, BITS] = 1
        return inputs.to(device), targets.to(device)


def measure(work: CopyWork, settings: Settings) -> Comparison:
    """The plain loop, the kernel if one fits, the compiled cell if asked for, and the optimiser's step beside them.

    Args:
        work: what to learn from.
        settings: how to measure.
    """
    with settings.with_threads(work.threads) as threads:
        title = _title(work, settings, threads)
        settings.say(f"  {title}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = NTM(BITS + 1, BITS, num_slots=work.slots).to(settings.device)
        inputs, targets = work.draw(settings.device)
        sizes = sizes_of(model.cell)
        batch = share(work.batch, threads) if settings.device.type == "cpu" else work.batch
        passes = ntm_passes(sizes, batch, work.time)
        ways, notes = _ways(model, inputs, targets, settings)
        measured = compare(
            title,
            ways,
            settings.seconds,
            clock_for(settings.device),
            [
                products_part(ntm_products(sizes, batch, work.time), settings.device),
                passes_part(passes, settings.device),
            ],
            notes,
        )
        return _with_launches(measured, ways, passes.bytes) if settings.device.type == "cuda" else measured


def _title(work: CopyWork, settings: Settings, threads: int) -> str:
    parts = [f"batch {work.batch}", f"length {work.length}"]
    if work.slots != 128:
        parts.append(f"{work.slots} slots")
    if settings.device.type == "cpu":
        parts.append(f"{threads} thread{'s' * (threads > 1)}")
    return ", ".join(parts)


def _ways(model: NTM, inputs: Tensor, targets: Tensor, settings: Settings) -> tuple[list[Way], list[str]]:
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
        compiled.cell.compile()
        step = TrainingStep(compiled, partial(loss_of, compiled), kernels.disabled)
        try:
            step()
            ways.append(Way("compiled cell", step, step.results))
        except RuntimeError as error:  # torch.compile's are, as when there is no compiler
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            notes.append(f"the cell could not be compiled: {reason}")
    ways.append(Way("optimizer step", _optimizer_step(model), apart=True))
    return ways, notes


def _optimizer_step(model: nn.Module) -> Callable[[], None]:
    """Adam's, on a copy, with a learning rate of 0 and any gradients, so that weights stay what they are."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.grad = torch.ones_like(parameter)
    return torch.optim.Adam(copied.parameters(), lr=0.0).step


def _with_launches(measured: Comparison, ways: list[Way], memory_bytes: int) -> Comparison:
    """Adds, on a GPU, how many operations each way launches and how fast it goes over the memory."""
    launches = {way.name: _launches(way.run) for way in ways}
    rows = []
    for row in measured.rows:
        extra = {}
        if row.way in launches:
            extra["launches"] = float(launches[row.way])
        if row.times_less is not None:
            extra["memory GB/s"] = memory_bytes / row.median / 1e9
        rows.append(replace(row, extra=extra))
    return replace(measured, rows=tuple(rows))


def _launches(run: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events() or [])
