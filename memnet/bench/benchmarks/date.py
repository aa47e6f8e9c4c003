"""Training step of attention on dates, at one and two threads.

The date task of "Deep Learning from Scratch 2", chapter 8, in its sizes: batch 128, 29 characters to 11 symbols,
embedding 16, hidden 256, dot-product attention. ``memnet.Seq2Seq`` against the same network in PyTorch's own modules
and nothing else, and against the matrix products alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.bench.floors import Product, attention, linear, lstm, products_part, share
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings, cores
from memnet.bench.step import TrainingStep
from memnet.bench.timing import clock_for


@dataclass(frozen=True)
class DateWork:
    """Sizes of the date task, with 63 symbols: 59 characters and 4 that every vocabulary has."""

    batch: int = 128
    source: int = 29
    target: int = 11
    symbols: int = 63
    embedding: int = 16
    hidden: int = 256

    def draw(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Any characters: the source, what the decoder is given, what it should answer."""
        generator = torch.Generator().manual_seed(1)
        source, target_in, target = (
            torch.randint(4, self.symbols, (self.batch, steps), generator=generator)
            for steps in (self.source, self.target, self.target)
        )
        return source.to(device), target_in.to(device), target.to(device)

    def products(self, batch: int) -> list[Product]:
        """The matrix products of a training step.

        Args:
            batch: how many dates.
        """
        return [
            *lstm(batch, self.source, self.embedding, self.hidden, from_zeros=True),
            *lstm(batch, self.target, self.embedding, self.hidden, from_zeros=False),
            *attention(batch, self.target, self.source, self.hidden),
            *linear(batch * self.target, 2 * self.hidden, self.symbols),
        ]


class PlainSeq2Seq(nn.Module):
    """The network as one writes it down for this task alone.

    Args:
        work: its sizes.
    """

    def __init__(self, work: DateWork):
        super().__init__()
        self.source_embedding = nn.Embedding(work.symbols, work.embedding)
        self.encoder = nn.LSTM(work.embedding, work.hidden, batch_first=True)
        self.target_embedding = nn.Embedding(work.symbols, work.embedding)
        self.decoder = nn.LSTM(work.embedding, work.hidden, batch_first=True)
        self.output = nn.Linear(2 * work.hidden, work.symbols)

    def forward(self, source: Tensor, target_in: Tensor) -> Tensor:
        """Logits for every next symbol."""
        memory, state = self.encoder(self.source_embedding(source.flip(1)))
        hidden, _ = self.decoder(self.target_embedding(target_in), state)
        weights = (hidden @ memory.transpose(1, 2)).softmax(-1)
        return self.output(torch.cat([hidden, weights @ memory], -1))


SAME = {
    "source_embedding": "encoder.embedding",
    "encoder": "encoder.stack.units.0",
    "target_embedding": "decoder.embedding",
    "decoder": "decoder.stack.units.0",
    "output": "decoder.output",
}
"""Which part of ``memnet.Seq2Seq`` is which of the plain network."""


def run(settings: Settings, work: DateWork | None = None) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        work: its sizes; the textbook's by default.
    """
    work = work if work is not None else DateWork()
    usual: Sequence[int] = (
        (1, 2) if settings.threads is None and settings.device.type == "cpu" and cores() > 1 else (1,)
    )
    for number in usual:
        with settings.with_threads(number) as threads:
            title = f"batch {work.batch}" + (f", {threads} threads" if threads > 1 else ", 1 thread")
            settings.say(f"  {title}")
            batch = share(work.batch, threads) if settings.device.type == "cpu" else work.batch
            floor = [products_part(work.products(batch), settings.device)]
            yield compare(title, ways(work, settings.device), settings.seconds, clock_for(settings.device), floor)


def ways(work: DateWork, device: torch.device) -> list[Way]:
    """The same network twice, with the same weights.

    Args:
        work: its sizes.
        device: where it is trained.
    """
    from memnet import AttentionDecoder, ContentAddressing, DotScore, RecurrentEncoder, Seq2Seq

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        plain = PlainSeq2Seq(work).to(device)
        addressing = ContentAddressing(DotScore(work.hidden))
        encoder = RecurrentEncoder(work.symbols, work.embedding, work.hidden, reverse=True)
        decoder = AttentionDecoder(work.symbols, addressing, work.hidden, work.embedding, work.hidden)
        ours = Seq2Seq(encoder, decoder).to(device)
    shared: dict[str, Tensor] = {}
    for theirs, own in SAME.items():
        ours.get_submodule(own).load_state_dict(plain.get_submodule(theirs).state_dict())
        shared |= {f"{theirs}.{name}": x for name, x in ours.get_submodule(own).named_parameters()}
    source, target_in, target = work.draw(device)

    def loss_of(network: nn.Module) -> Tensor:
        return F.cross_entropy(network(source, target_in).flatten(0, 1), target.flatten())

    first = TrainingStep(plain, partial(loss_of, plain))
    second = TrainingStep(ours, partial(loss_of, ours), parameters=shared)
    return [Way("plain PyTorch", first, first.results), Way("memnet.Seq2Seq", second, second.results)]
