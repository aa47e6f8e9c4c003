"""Training step of the entity network by its stories' length.

The paper's network, 20 slots of 100 numbers, and batches of 32 questions: stories of ten sentences with a question
after every other one, as in most bAbI tasks; one question about nine sentences, as in task 16; and stories of 60
sentences with five questions, as in task 3. The plain loop reads each question's story, padding and all; the others
read a story once for all its questions. The floor is that of the products of what is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from memnet import EntityNetwork, kernels
from memnet.bench.floors import linear, products_part, share
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.step import TrainingStep
from memnet.bench.timing import clock_for


@dataclass(frozen=True)
class StoryWork:
    """Sizes; the vocabulary is that of ``tasks.Babi``."""

    name: str
    sentences: int
    questions: int
    """About each story, spread evenly over it."""
    batch: int = 32
    slots: int = 20
    width: int = 100
    words: int = 7
    vocabulary: int = 178
    answers: int = 62

    @property
    def stories(self) -> int:
        """How many there are in a batch."""
        return -(-self.batch // self.questions)

    def draw(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Any words: story, question and answer."""
        generator = torch.Generator().manual_seed(1)

        def numbers(*shape: int, low: int = 1, high: int = self.vocabulary) -> Tensor:
            return torch.randint(low, high, shape, generator=generator)

        told = numbers(self.stories, self.sentences, self.words).repeat_interleave(self.questions, 0)[: self.batch]
        number = torch.arange(self.batch) % self.questions + 1
        heard = number * self.sentences // self.questions
        told *= (torch.arange(self.sentences) < heard[:, None])[..., None]
        answer = numbers(self.batch, low=2, high=self.answers)
        return told.to(device), numbers(self.batch, 4).to(device), answer.to(device)


WORKS = (
    StoryWork("ten sentences, five questions", 10, 5),
    StoryWork("nine sentences, one question", 9, 1),
    StoryWork("60 sentences, five questions", 60, 5),
)


def run(settings: Settings, works: Sequence[StoryWork] = WORKS) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what.
    """
    for work in works:
        yield _measure(work, settings)


def _measure(work: StoryWork, settings: Settings) -> Comparison:
    with settings.with_threads() as threads:
        title = f"batch {work.batch}, {work.name}"
        settings.say(f"  {title}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = EntityNetwork(work.vocabulary, work.answers, work.slots, work.width).to(settings.device)
        story, question, answer = work.draw(settings.device)

        def loss_of() -> Tensor:
            return F.cross_entropy(model(story, question), answer, reduction="sum")

        plain = TrainingStep(model, loss_of, kernels.disabled)
        ways, notes = [Way("plain loop", plain, plain.results)], []
        if kernels.find_entity_network(model) is None:
            notes.append("no kernel fits here, so there is only the plain loop")
        else:
            fast = TrainingStep(model, loss_of)
            ways.append(Way("kernel" if settings.device.type == "cpu" else "without padding", fast, fast.results))
        stories = share(work.stories, threads) if settings.device.type == "cpu" else work.stories
        products = [
            *linear(stories * work.slots, work.width, work.width, work.sentences),
            *linear(stories * work.sentences, work.width, work.width),
            *linear(work.batch, work.width, work.answers),
        ]
        clock, floor = clock_for(settings.device), [products_part(products, settings.device)]
        return compare(title, ways, settings.seconds, clock, floor, notes)
