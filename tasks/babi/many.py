"""Many models on the bAbI tasks at once: several restarts of each, trained as one ensemble."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_positive
from memnet.ensemble import Ensemble

from ..base import Evaluation, Task
from ..epochs import InOrder, ItemBatches, Schedule, Shuffled
from ..sampling import TRAIN
from .encode import Encoded, StoryBatch
from .report import mean_and_failed, other_rows, published_errors, published_rows
from .show import StoryAnswers
from .task import Babi

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AT_ONCE = 1000  # questions


class BabiEnsemble(Task):
    """Several restarts on each of some bAbI tasks, as members of one ``memnet.Ensemble``.

    Member ``task * restarts + restart`` is trained on one task, or, if ``joint``, member ``restart`` on all of them.
    Each goes through its training questions in an order of its own. Of the restarts that were trained on the same
    questions, the one with the fewest errors in training is reported, as in the paper (sec. 4.2), and among equals the
    one with the lowest training loss; ``all_percent`` and ``std_percent`` are the mean and the standard deviation of
    the test error over all restarts.

    Batches of training and validation have a member axis; those of test sets have none, and every restart of their task
    is asked.

    Args:
        babi: the tasks, their data and the sizes of batches, which are each member's.
        restarts: how many models are trained on the same questions.
        joint: whether one model learns all tasks of ``babi``, and not each task has one of its own.

    Raises:
        ValueError: ``restarts`` is not positive, or ``babi`` tells stories anew or several times in an epoch; in
            training, the tasks' validation sets differ in size.
    """

    monitor = Babi.monitor
    curve = Babi.curve

    def __init__(self, babi: Babi, restarts: int = 10, joint: bool = False) -> None:
        self.restarts = check_positive("restarts", restarts)
        for name in ("exchange", "reorder", "repeats"):
            if getattr(babi, name):
                raise ValueError(
                    f"{name} is {getattr(babi, name)}, but an ensemble's stories are told once in an epoch, and as "
                    "they are: leave it out."
                )
        super().__init__()
        self.babi = babi
        self.joint = joint
        self._chosen: list[int] | None = None

    @property
    def num_groups(self) -> int:
        """How many sets of training questions there are: one for each task, or one for all."""
        return 1 if self.joint else len(self.babi.tasks)

    @property
    def num_members(self) -> int:
        """How many models are trained."""
        return self.num_groups * self.restarts

    def prepare_data(self) -> None:
        """See ``Babi``."""
        self.babi.prepare_data()

    def train_set(self) -> tuple[Encoded, list[np.ndarray], list[np.ndarray]]:
        """All training questions, and for each group which are for training and which for validation."""
        encoded, train, val = self.babi.train_set()
        if self.joint:
            return encoded, [train], [val]
        by_task = [[items[encoded.tasks[items] == task] for task in self.babi.tasks] for items in (train, val)]
        return encoded, by_task[0], by_task[1]

    @property
    def epoch_size(self) -> int:  # type: ignore[override]
        """How many questions all members together are trained on in an epoch."""
        return self.restarts * sum(map(len, self.train_set()[1]))

    @property
    def test_names(self) -> list[str]:
        return self.babi.test_names

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, Ensemble) or model.num_members != self.num_members:
            kind = f"an Ensemble of {model.num_members}" if isinstance(model, Ensemble) else f"a {type(model).__name__}"
            raise ValueError(
                f"the network is {kind}, but {self.restarts} restarts on {self.num_groups} sets of questions need an "
                f"Ensemble of {self.num_members} members."
            )
        self.babi.check_model(model.network)

    def evaluate(self, model: nn.Module, batch: StoryBatch) -> Evaluation:
        assert isinstance(model, Ensemble)
        if batch.story.dim() == 3:
            return self._evaluate_restarts(model, batch)
        logits = model(batch.story, batch.question)
        nats = F.cross_entropy(
            rearrange(logits.float(), "member batch answer -> (member batch) answer"),
            rearrange(batch.answer, "member batch -> (member batch)"),
            reduction="none",
        )
        with torch.no_grad():
            wrong = (logits.argmax(2) != batch.answer).flatten().float()
        # A sum over members, so that each has the gradients of its own loss.
        loss = nats.sum() * self.babi.batch_size / batch.answer.shape[1]
        return Evaluation(loss, {"error_percent": 100 * wrong, "nats": nats.detach()}, logits)

    @torch.no_grad()
    def _evaluate_restarts(self, model: Ensemble, batch: StoryBatch) -> Evaluation:
        group = self._group(batch)
        chosen = self.babi.evaluate(self._member(model, group, self.chosen(model)[group]), batch)
        errors = 100 * torch.stack(
            [_wrong(self._member(model, group, restart), batch) for restart in range(self.restarts)]
        )
        spread = errors.mean(1).std(unbiased=False)
        metrics = {"all_percent": errors.mean(0), "std_percent": spread.expand(errors.shape[1])}
        return chosen._replace(metrics=chosen.metrics | metrics)

    def _member(self, model: Ensemble, group: int, restart: int) -> nn.Module:
        return model.member(group * self.restarts + restart)

    def _group(self, batch: StoryBatch) -> int:
        if self.num_groups == 1:
            return 0
        numbers = batch.task.unique().tolist()
        if len(numbers) > 1 or numbers[0] not in self.babi.tasks:
            raise ValueError(
                f"the questions are of tasks {numbers}, but a model of this ensemble answers those of one of "
                f"{', '.join(map(str, self.babi.tasks))}."
            )
        return self.babi.tasks.index(numbers[0])

    @torch.no_grad()
    def chosen(self, model: Ensemble) -> list[int]:
        """For each set of training questions the restart with the fewest errors in it, asked without noise.

        Args:
            model: the trained ensemble, in evaluation mode.
        """
        if self._chosen is None:
            encoded, groups, _ = self.train_set()
            self._chosen = []
            for group, items in enumerate(groups):
                totals = [
                    self._training_error(self._member(model, group, restart), encoded, items)
                    for restart in range(self.restarts)
                ]
                self._chosen.append(totals.index(min(totals)))
        return self._chosen

    @torch.no_grad()
    def _training_error(self, member: nn.Module, encoded: Encoded, items: np.ndarray) -> tuple[float, float]:
        """Errors and loss; the device is the model's."""
        errors, loss = 0.0, 0.0
        device = next(member.parameters()).device
        for part in np.array_split(items, -(-len(items) // _AT_ONCE)):
            batch = self.transfer_batch_to_device(encoded.batch(part, self.babi.num_sentences), device, 0)
            logits = member(batch.story, batch.question)
            errors += float((logits.argmax(1) != batch.answer).sum())
            loss += float(F.cross_entropy(logits.float(), batch.answer, reduction="sum"))
        return errors, loss

    def describe(self, batch: StoryBatch, outputs: StoryAnswers, item: int) -> str:
        return self.babi.describe(batch, outputs, item)

    def draw(self, network: nn.Module, batch: StoryBatch, title: str) -> "dict[str, Figure]":
        assert isinstance(network, Ensemble)
        group = self._group(batch)
        return self.babi.draw(self._member(network, group, self.chosen(network)[group]), batch, title)

    def batch_of(self, text: str) -> StoryBatch:
        """See ``Babi``.

        Raises:
            ValueError: the text does not do, or there are models of several tasks, of which none is meant.
        """
        if self.num_groups > 1:
            raise ValueError(
                f"--input is given, but the ensemble has models of {self.num_groups} tasks and cannot know which is "
                "asked; train one on a single task."
            )
        return self.babi.batch_of(text)

    def published(self) -> dict[str, dict[str, float]]:
        return published_errors(self.babi.size, self.babi.tasks, self.joint)

    def summary(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        published = published_rows(self.babi.size, self.babi.tasks, self.joint)
        return mean_and_failed(rows, [self.monitor, "all_percent"], published)

    def notes(self) -> list[str]:
        return other_rows(self.babi.size, self.babi.tasks, self.joint)

    def train_dataloader(self) -> "_MemberBatches":
        """The endless training stream, from batch ``batches_consumed`` on."""
        encoded, groups, _ = self.train_set()
        tasks = (0,) if self.joint else self.babi.tasks
        orders: list[tuple[np.ndarray, Schedule]] = [
            (items, self._order(encoded, items, _key(self.babi.seed, restart, task)))
            for items, task in zip(groups, tasks, strict=True)
            for restart in range(self.restarts)
        ]
        numbers = itertools.count(self.batches_consumed)
        return _MemberBatches(encoded, orders, numbers, self.babi.num_sentences, *self.ranks())

    def _order(self, encoded: Encoded, items: np.ndarray, key: np.ndarray) -> Shuffled:
        return Shuffled(len(items), self.babi.batch_size, key, encoded.starts[items] if self.babi.by_story else None)

    def val_dataloader(self) -> "_MemberBatches":
        """The questions held out of each member's training, in their order."""
        encoded, _, groups = self.train_set()
        sizes = sorted(set(map(len, groups)))
        if len(sizes) > 1:
            raise ValueError(
                f"the tasks hold out from {sizes[0]} to {sizes[-1]} questions for validation, but an ensemble needs as "
                "many of each: give num_val."
            )
        order = InOrder(sizes[0], self.babi.eval_batch_size)
        orders: list[tuple[np.ndarray, Schedule]] = [(items, order) for items in groups for _ in range(self.restarts)]
        return _MemberBatches(encoded, orders, range(order.num_batches), self.babi.num_sentences, *self.ranks())

    def test_dataloader(self) -> list[ItemBatches[StoryBatch]]:
        """The test questions of each task, all in one batch: the spread over restarts is that of a whole set."""
        self._chosen = None
        return [self._whole(*self.babi.test_set(task)) for task in self.babi.tasks]

    def predict_dataloader(self) -> Iterator[StoryBatch]:
        """Questions held out of training, one of each task in turn."""
        self._chosen = None
        encoded, _, groups = self.train_set()
        places = range(min(map(len, groups)))
        return (
            encoded.batch(items[place : place + 1], self.babi.num_sentences) for place in places for items in groups
        )

    def _whole(self, encoded: Encoded, items: np.ndarray) -> ItemBatches[StoryBatch]:
        rank, num_ranks = self.ranks()
        return ItemBatches(
            lambda places: encoded.batch(items[places], self.babi.num_sentences),
            InOrder(len(items), len(items)),
            num_batches=1,
            rank=rank,
            num_ranks=num_ranks,
        )


class _MemberBatches:
    """Batches with a member axis; of each member's questions one process gets its part.

    Args:
        encoded: all questions.
        orders: each member's questions, and which of them each batch holds, equally many for all.
        numbers: of the batches.
        num_sentences: as for ``Encoded.batch``.
        rank: which process this is.
        num_ranks: number of processes.
    """

    def __init__(
        self,
        encoded: Encoded,
        orders: list[tuple[np.ndarray, Schedule]],
        numbers: Iterable[int],
        num_sentences: int,
        rank: int,
        num_ranks: int,
    ) -> None:
        for _, order in orders:
            order.check_ranks(num_ranks)
        self._encoded = encoded
        self._orders = orders
        self._numbers = numbers
        self._num_sentences = num_sentences
        self._rank, self._num_ranks = rank, num_ranks

    def __iter__(self) -> Iterator[StoryBatch]:
        for number in self._numbers:
            items = np.stack([own[order.items(number)] for own, order in self._orders])
            items = np.array_split(items, self._num_ranks, axis=1)[self._rank]
            flat = self._encoded.batch(items.reshape(-1), self._num_sentences)
            yield StoryBatch(*(rearrange(part, "(m b) ... -> m b ...", m=len(items)) for part in flat))


def _key(seed: int, restart: int, task: int) -> np.ndarray:
    """The stream of a member's batches."""
    return np.random.SeedSequence((TRAIN, seed, restart, task)).generate_state(2, np.uint64)


def _wrong(member: nn.Module, batch: StoryBatch) -> Float[Tensor, " batch"]:
    return (member(batch.story, batch.question).argmax(1) != batch.answer).float()
