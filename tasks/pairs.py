"""Tasks that turn one sequence of symbols into another: the loss, the metrics and how an example is shown."""

import abc
import textwrap
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_fraction, check_positive, check_seed
from memnet.decoding import BOS, PAD, UNK
from memnet.recording import record
from memnet.reinforce import reinforce_loss

from .base import Evaluation, Task
from .epochs import InOrder, ItemBatches, Schedule
from .pair_set import PairBatch, PairSet
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN_SET, VAL_SET = "train", "val"
"""Names of the two sets that every task has."""

_COLUMNS = 80
_LABEL = 12


class PairTask(Task):
    """A task on pairs of texts; a new one says where they come from, what their symbols are and how they are batched.

    The loss is the cross-entropy of each target symbol, given the true ones before it, averaged over the symbols of the
    batch that are not padding. A model that samples slots adds what ``memnet.reinforce_loss`` gives for them.

    Metrics of a pair: ``nats``, the cross-entropy (without label smoothing) summed over the target's symbols, and
    ``symbol_accuracy``, how many of them are the most likely ones, in [0, 1]. In validation and test the model also
    writes the target by itself, and the task compares the texts.

    Args:
        eval_batch_size: validation and test pairs in a batch, over all processes.
        beam_size: how many sequences the search follows that writes targets; 1 is greedy.
        length_penalty: how much a beam search favours longer targets, at least 0.
        label_smoothing: which part of each target's probability is spread over all symbols (Szegedy et al. 2016,
            section 7), from 0 to below 1.
        entropy_bonus: as for ``memnet.reinforce_loss``, for models that sample slots.
        seed: the training stream, 0 or larger.

    Raises:
        ValueError: a size is below 1, or a number is out of its range.
    """

    def __init__(
        self,
        eval_batch_size: int = 128,
        beam_size: int = 1,
        length_penalty: float = 1.0,
        label_smoothing: float = 0.0,
        entropy_bonus: float = 0.0,
        seed: int = 1,
    ) -> None:
        check_positive("eval_batch_size", eval_batch_size)
        check_positive("beam_size", beam_size)
        if not 0 <= length_penalty < float("inf"):
            raise ValueError(f"length_penalty is {length_penalty}, but must be a finite number of at least 0.")
        check_fraction("label_smoothing", label_smoothing)
        if not 0 <= entropy_bonus < float("inf"):
            raise ValueError(f"entropy_bonus is {entropy_bonus}, but must be a finite number of at least 0.")
        check_seed(seed)
        super().__init__()
        self.eval_batch_size = eval_batch_size
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.label_smoothing = label_smoothing
        self.entropy_bonus = entropy_bonus
        self.seed = seed
        self._sets: dict[str, PairSet] = {}

    @property
    @abc.abstractmethod
    def source_vocabulary(self) -> Vocabulary:
        """The symbols of sources."""

    @property
    @abc.abstractmethod
    def target_vocabulary(self) -> Vocabulary:
        """The symbols of targets."""

    @property
    @abc.abstractmethod
    def max_target_length(self) -> int:
        """How many symbols the model may write, EOS counted."""

    @abc.abstractmethod
    def read(self, name: str) -> list[tuple[str, str]]:
        """The source and target texts of a set.

        Args:
            name: ``TRAIN_SET``, ``VAL_SET`` or one of ``test_names``.
        """

    @abc.abstractmethod
    def schedule(self, pairs: PairSet) -> Schedule:
        """Which training pairs each batch holds.

        Args:
            pairs: the training set.
        """

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        """The symbols of each source text.

        Args:
            texts: sources.
        """
        return self.source_vocabulary.encode(texts)

    def text_metrics(self, batch: PairBatch, answers: list[tuple[str, str]]) -> dict[str, Float[Tensor, " batch"]]:
        """Metrics of what the model has written: ``error``, 1 where it is not the target, and ``exact``, 1 where it is.

        Args:
            batch: the batch.
            answers: what was written, and what would be right.
        """
        exact = torch.tensor([float(written == right) for written, right in answers], device=batch.source.device)
        return {"error": 1 - exact, "exact": exact}

    def pair_set(self, name: str) -> PairSet:
        """A set as symbols. Symbols that a vocabulary lacks are UNK, and one warning says how many.

        Args:
            name: as for ``read``.
        """
        if name not in self._sets:
            texts = self.read(name)
            sources, targets = [source for source, _ in texts], [target for _, target in texts]
            source_symbols, target_symbols = self.encode_sources(sources), self.target_vocabulary.encode(targets)
            _warn_of_unknown(f"the {name} set", [*sources, *targets], [*source_symbols, *target_symbols])
            self._sets[name] = PairSet(source_symbols, target_symbols, targets)
        return self._sets[name]

    @property
    def longest_source(self) -> int:
        """How many symbols the longest source of any set has."""
        names = [TRAIN_SET, VAL_SET, *self.test_names]
        return max(int(self.pair_set(name).source_lengths.max()) for name in names)

    def check_model(self, model: nn.Module) -> None:
        sizes = (getattr(model, "source_vocab_size", None), getattr(model, "target_vocab_size", None))
        own = (len(self.source_vocabulary), len(self.target_vocabulary))
        if sizes != own:
            raise ValueError(
                f"{type(model).__name__} has source_vocab_size {sizes[0]} and target_vocab_size {sizes[1]}, but "
                f"{type(self).__name__} needs source_vocab_size {own[0]} and target_vocab_size {own[1]}."
            )
        fits = getattr(model, "max_source_length", None)
        if fits is not None and fits < self.longest_source:
            raise ValueError(
                f"{type(model).__name__} has max_source_length {fits}, but the longest source of "
                f"{type(self).__name__} has {self.longest_source} symbols."
            )

    def evaluate(self, model: nn.Module, batch: PairBatch) -> Evaluation:
        state = model.encode(batch.source, batch.source_lengths)  # type: ignore[operator]
        logits, sampled = model.decode(batch.target[:, :-1], state)  # type: ignore[operator]
        labels = batch.target[:, 1:]
        real = _real(batch.target_lengths - 1, labels)
        # Sums over thousands of symbols want float32 even where the model ran in less.
        log_probs = F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
        likelihood = log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        nats = torch.where(real, -likelihood, 0.0)
        total = nats.sum()
        if self.label_smoothing:
            spread = torch.where(real, -log_probs.mean(-1), 0.0)
            total = (1 - self.label_smoothing) * total + self.label_smoothing * spread.sum()
        if sampled is not None:
            total = total + reinforce_loss(sampled, likelihood, real, self.entropy_bonus).sum()
        with torch.no_grad():
            best = torch.where(real, log_probs.argmax(-1), PAD)
            metrics = {
                "nats": nats.detach().sum(1),
                "symbol_accuracy": ((best == labels) & real).sum(1) / real.sum(1),
            }
        count = real.sum()
        loss = total / count
        if model.training:
            return Evaluation(loss, metrics, best, loss_count=count)
        return self._written(model, batch, loss, metrics)._replace(loss_count=count)

    def _written(
        self, model: nn.Module, batch: PairBatch, loss: Tensor, metrics: dict[str, Float[Tensor, " batch"]]
    ) -> Evaluation:
        tokens = self._generate(model, batch)
        written = [self.target_vocabulary.decode(row) for row in tokens.tolist()]
        right = batch.references or [self.target_vocabulary.decode(row) for row in batch.target.tolist()]
        answers = list(zip(written, right, strict=True))
        return Evaluation(loss, metrics | self.text_metrics(batch, answers), tokens, answers)

    def _generate(self, model: nn.Module, batch: PairBatch) -> Int64[Tensor, "batch time"]:
        return model.generate(  # type: ignore[operator]
            batch.source,
            batch.source_lengths,
            max_length=self.max_target_length,
            beam_size=self.beam_size,
            length_penalty=self.length_penalty,
        ).tokens

    def batch_of(self, text: str) -> PairBatch:
        if not text.strip():
            raise ValueError(f"--input is {text!r}, but must hold a text for {type(self).__name__}.")
        symbols = self.encode_sources([text])
        _warn_of_unknown("--input", [text], symbols)
        return PairSet(symbols, [[]], [""]).batch(np.array([0]))

    def describe(self, batch: PairBatch, outputs: Int64[Tensor, "batch time"], item: int) -> str:
        source = self.source_vocabulary.decode(batch.source[item, : batch.source_lengths[item]].tolist())
        written = self.target_vocabulary.decode(outputs[item].tolist())
        rows = {"source": source.rstrip(), "prediction": written}
        if batch.target_lengths[item] > 2:
            right = self._right(batch, item)
            rows |= {"target": right, "agree": "yes" if written == right else "no"}
        indent = " " * _LABEL
        lines = []
        for name, text in rows.items():
            lines += textwrap.wrap(f"{name:<{_LABEL}}{text}", _COLUMNS, subsequent_indent=indent) or [name]
        return "\n".join(lines)

    def _right(self, batch: PairBatch, item: int) -> str:
        return (
            batch.references[item] if batch.references else self.target_vocabulary.decode(batch.target[item].tolist())
        )

    @torch.no_grad()
    def draw(self, network: nn.Module, batch: PairBatch, title: str) -> "dict[str, Figure]":
        from memnet.training.alignment import draw_alignment  # matplotlib is not needed before

        names: tuple[str, ...] = getattr(network, "alignment_names", ())
        if not names:
            return {}
        length = int(batch.source_lengths[0])
        source = batch.source[:1, :length]
        first = PairBatch(source, batch.target[:1], batch.source_lengths[:1], batch.target_lengths[:1])
        tokens = self._generate(network, first)
        target_in = torch.cat([tokens.new_full((1, 1), BOS), tokens[:, :-1]], 1)
        with record(network) as trace:
            network.decode(target_in, network.encode(source))  # type: ignore[operator]
        alignments = {name: _by_head(trace[name], tokens.shape[1]) for name in names if name in trace}
        if not alignments:
            return {}
        source_symbols = self.source_vocabulary.symbols(source[0].tolist())
        written = self.target_vocabulary.symbols(tokens[0].tolist())
        return {"alignment": draw_alignment(alignments, source_symbols, written, title)}

    def train_dataloader(self) -> ItemBatches[PairBatch]:
        """The endless training stream, from batch ``batches_consumed`` on."""
        rank, num_ranks = self.ranks()
        pairs = self.pair_set(TRAIN_SET)
        return ItemBatches(pairs.batch, self.schedule(pairs), self.batches_consumed, rank=rank, num_ranks=num_ranks)

    def val_dataloader(self) -> ItemBatches[PairBatch]:
        """The validation set, in its order."""
        return self._fixed(VAL_SET)

    def test_dataloader(self) -> list[ItemBatches[PairBatch]]:
        """The test sets, each in its order."""
        return [self._fixed(name) for name in self.test_names]

    def predict_dataloader(self) -> ItemBatches[PairBatch]:
        """The first batch of the validation set."""
        return self._fixed(VAL_SET, most=1)

    def _fixed(self, name: str, most: int | None = None) -> ItemBatches[PairBatch]:
        rank, num_ranks = self.ranks()
        pairs = self.pair_set(name)
        order = InOrder(len(pairs), self.eval_batch_size)
        number = order.num_batches if most is None else min(most, order.num_batches)
        return ItemBatches(pairs.batch, order, num_batches=number, rank=rank, num_ranks=num_ranks)


def _real(lengths: Int64[Tensor, " batch"], padded: Int64[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    places = torch.arange(padded.shape[1], device=padded.device)
    return places < lengths.to(padded.device, non_blocking=True).unsqueeze(1)


def _by_head(weights: Float[Tensor, "rows time head slot"], steps: int) -> Float[np.ndarray, "head target source"]:
    """A trace of one example, whether all steps asked at once, each of several heads as a row, or one after another."""
    rows, time, asking, _ = weights.shape
    at_once = time == 1 and asking == steps
    assert at_once or (rows == 1 and time == steps)
    return (weights[:, 0] if at_once else weights[0].transpose(0, 1)).float().cpu().numpy()


def _warn_of_unknown(where: str, texts: Sequence[str], symbols: Sequence[Sequence[int]]) -> None:
    counts = [list(ids).count(UNK) for ids in symbols]
    if any(counts):
        first = next(text for text, count in zip(texts, counts, strict=True) if count)
        total = sum(map(len, symbols))
        warnings.warn(
            f"{sum(counts)} of {total} symbols in {where} are not in the vocabulary and are read as <unk>, "
            f"the first in {first.strip()!r}.",
            stacklevel=3,
        )
