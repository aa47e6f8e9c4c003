"""Training step of many memory networks, alone and together.

The paper's network for one bAbI task (3 hops, d = 20, position encoding) and stories as long as those of all 20 tasks:
half of them have at most 7 sentences, but all are padded to 50. Each member gets 32 questions of its own.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from memnet import kernels
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.step import TrainingStep
from memnet.bench.timing import clock_for

# Sentences before a question, of the last 50: the middles of the ten tenths of all tasks' training questions.
_LENGTHS = (2, 2, 4, 5, 6, 8, 8, 10, 12, 28)


@dataclass(frozen=True)
class BabiWork:
    """Sizes; the vocabulary is that of ``tasks.Babi``."""

    members: int = 20
    batch: int = 32
    sentences: int = 50
    words: int = 11
    vocabulary: int = 178
    answers: int = 62

    def draw(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Any words: story, question and answer."""
        generator = torch.Generator().manual_seed(1)

        def numbers(*shape: int, low: int = 1, high: int = self.vocabulary) -> Tensor:
            return torch.randint(low, high, (self.members, self.batch, *shape), generator=generator)

        lengths = torch.tensor(_LENGTHS)[numbers(low=0, high=len(_LENGTHS))].clamp(max=self.sentences)
        story = numbers(self.sentences, self.words)
        story *= torch.arange(self.words) < numbers(self.sentences, 1, low=min(4, self.words), high=self.words + 1)
        story *= (torch.arange(self.sentences) < lengths[..., None])[..., None]
        answer = numbers(low=2, high=self.answers)
        return story.to(device), numbers(4).to(device), answer.to(device)


def run(settings: Settings, work: BabiWork | None = None) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        work: its sizes; the paper's by default.
    """
    work = work if work is not None else BabiWork()
    with settings.with_threads(2) as threads:
        title = f"{work.members} networks, batch {work.batch}, threads: {threads}"
        settings.say(f"  {title}")
        measured = compare(title, ways(work, settings.device), settings.seconds, clock_for(settings.device))
        questions = work.members * work.batch
        rows = tuple(replace(row, extra={"questions/s": questions / row.median}) for row in measured.rows)
        yield replace(measured, rows=rows)


def ways(work: BabiWork, device: torch.device) -> list[Way]:
    """The same networks on the same questions; with the kernel on the CPU, where there is one.

    Args:
        work: its sizes.
        device: where they are trained.
    """
    from memnet import Ensemble, MemN2N

    make = partial(MemN2N, work.vocabulary, num_answers=work.answers, num_sentences=work.sentences, empty_memories=0.0)
    ensemble = Ensemble(make, work.members).to(device)
    models = torch.nn.ModuleList(ensemble.member(number) for number in range(work.members))
    story, question, answer = work.draw(device)

    def together() -> Tensor:
        return F.cross_entropy(ensemble(story, question).flatten(0, 1), answer.flatten(), reduction="sum")

    def one_by_one() -> Tensor:
        logits = [model(*own) for model, *own in zip(models, story, question, strict=True)]
        return F.cross_entropy(torch.cat(logits), answer.flatten(), reduction="sum")

    def gradients(step: TrainingStep) -> dict[str, Tensor]:
        networks = [ensemble.network] if step.model is ensemble else list(models)
        found = {}
        for name, _ in ensemble.network.named_parameters():
            own = [gradient for network in networks if (gradient := network.get_parameter(name).grad) is not None]
            found[name] = own[0] if step.model is ensemble else torch.stack(own)
        return found

    found: list[Way] = []
    for with_kernel in (False, True) if device.type == "cpu" else (False,):
        surroundings = nullcontext if with_kernel else kernels.disabled
        how = "kernel" if with_kernel else "plain"
        for name, model, loss_of in (("one by one", models, one_by_one), ("ensemble", ensemble, together)):
            step = TrainingStep(model, loss_of, surroundings)
            found.append(Way(f"{name}, {how}", step, partial(gradients, step)))
    return found
