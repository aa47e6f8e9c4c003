"""Questions about stories: the 20 bAbI tasks (Weston et al. 2015, https://arxiv.org/abs/1502.05698)."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.addressing import Addressing
from memnet.checks import check_positive, check_seed
from memnet.recording import record

from ..base import Evaluation, Task
from ..epochs import InOrder, ItemBatches
from ..sampling import TRAIN, stream_key
from . import show
from .download import download_archive
from .encode import Encoded, StoryBatch, encode_stories, join
from .names import NUM_TASKS, check_task, test_name
from .reader import find_file
from .report import mean_and_failed, other_rows, published_errors, published_rows
from .sets import TEST_QUESTIONS, TRAIN_QUESTIONS, genuine
from .sets import generated as generated_questions
from .show import StoryAnswers
from .stream import TrainingStream, repeated
from .typed import story_of
from .vocabulary import NUM_ANSWERS, UNKNOWN, VOCAB_SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEST_SEED = 1


class Babi(Task):
    """Answers a question about a story with a word (or a list of words, which counts as one).

    One task, or several that one model learns at once (joint training). Each question comes with the sentences said
    before it in its story. A sentence is its words, without punctuation and in lower case, as numbers of one vocabulary
    that all tasks share (see ``tasks.babi.vocabulary``). A model answers ``model(story, question)`` with logits for the
    first ``num_answers`` words of it, which may be all, as in the paper; its ``vocab_size`` is 178 and its
    ``num_answers`` from 62 to 178.

    The loss is the cross-entropy, summed over a batch as in the paper: the mean over the questions at hand times
    ``batch_size``, so that it means the same for the last, smaller batch of a validation and for a part of a batch on
    one of several processes. Metrics of a question: ``error_percent``, 100 where the answer is wrong, else 0, and
    ``nats``, the cross-entropy. An answer that no task has is never right.

    Without ``folder``, stories are generated (see ``tasks.babi.generate``): the training stories are a function of the
    seed, the test stories are the same for every seed. As in the genuine files, which hold each of the few things that
    can be said in the simplest tasks many times over, test stories may also occur in training.

    Args:
        tasks: the number of a task, several numbers, or ``all``.
        size: how many training questions a task has: 1,000 (``1k``) or 10,000 (``10k``), of which some are held out.
        folder: the genuine files: where the official archive was unpacked, or is to be.
        download: whether to fetch the archive into ``folder`` if files are missing there.
        num_train: only the first so many training questions of each task, the held-out ones counted; generated ones may
            be more than ``size`` says.
        num_val: how many of each task's training questions, the last ones, are held out for validation; one in ten if
            unset, as in the paper.
        num_test: only the first so many test questions of each task.
        num_sentences: how many sentences before the question a story keeps, the last ones; a warning says how many
            questions have more.
        batch_size: training questions in a batch, over all processes.
        eval_batch_size: validation and test questions in a batch, over all processes.
        seed: the order of the training questions and, where they are generated, the questions; 0 or larger.
        by_story: whether the training questions of a story follow one another and only the stories are shuffled. A
            ``memnet.EntityNetwork`` or a ``memnet.StoryTransformer`` then reads a story once for all of them, which
            makes training several times faster.
        generated: tasks whose training questions are generated although there is a folder, as where a file is missing;
            their test questions are the folder's.
        exchange: whether each training story is told in every epoch of other people, places and things, for whom all
            that was said stays true (see ``tasks.babi.exchange``). No published figure but one has been reached so.
        reorder: whether training stories whose facts hold all at once are told in every epoch in another order of
            their sentences (see ``tasks.babi.reorder``).
        repeats: how often each training question of a task comes in an epoch, by the task's number, as ``{17: 4}``;
            once where a task is not named. With ``exchange`` and ``reorder`` the story is told anew each time.

    Raises:
        ValueError: a number is out of its range, or download is said without a folder; and, when the data are read, a
            file is missing or not as it should be, or has not as many questions as wanted.
    """

    monitor = "error_percent"
    curve = ("error_percent", "wrong answers, %")

    def __init__(
        self,
        tasks: int | list[int] | Literal["all"] = 1,
        size: Literal["1k", "10k"] = "1k",
        folder: str | None = None,
        download: bool = False,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        num_sentences: int = 50,
        batch_size: int = 32,
        eval_batch_size: int = 250,
        seed: int = 1,
        by_story: bool = False,
        generated: list[int] | None = None,
        exchange: bool = False,
        reorder: bool = False,
        repeats: dict[int, int] | None = None,
    ) -> None:
        chosen = _task_numbers(tasks)
        if size not in TRAIN_QUESTIONS:
            raise ValueError(f"size is {size!r}, but must be one of {', '.join(TRAIN_QUESTIONS)}.")
        if download and folder is None:
            raise ValueError("download is True, but folder is not given: say where the files shall go.")
        for name, number in {"num_train": num_train, "num_val": num_val, "num_test": num_test}.items():
            if number is not None:
                check_positive(name, number)
        check_positive("num_sentences", num_sentences)
        check_positive("batch_size", batch_size)
        check_positive("eval_batch_size", eval_batch_size)
        check_seed(seed)
        for task in generated or []:
            if task not in chosen:
                raise ValueError(f"generated is {generated}, but task {task} is none of the tasks, {list(chosen)}.")
        for task, times in (repeats or {}).items():
            if task not in chosen:
                raise ValueError(f"repeats is {repeats}, but task {task} is none of the tasks, {list(chosen)}.")
            check_positive(f"repeats of task {task}", times)
        super().__init__()
        self.tasks = chosen
        self.size = size
        self.folder = folder
        self.download = download
        self.num_train = num_train
        self.num_val = num_val
        self.num_test = num_test
        self.num_sentences = num_sentences
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.by_story = by_story
        self.generated = tuple(generated or ())
        self.exchange = exchange
        self.reorder = reorder
        self.repeats = dict(repeats or {})
        self._train: tuple[Encoded, np.ndarray, np.ndarray] | None = None
        self._tests: dict[int, Encoded] = {}

    def prepare_data(self) -> None:
        """Fetches the archive if that is wanted and files are missing."""
        if self.download and self.folder is not None:
            try:
                for task in self.tasks:
                    for split in ("train", "test"):
                        if not self._generates(task, split):
                            find_file(self.folder, task, self.size, split)
            except ValueError:
                download_archive(self.folder)

    def train_set(self) -> tuple[Encoded, np.ndarray, np.ndarray]:
        """All training questions, and which of them are for training and which for validation."""
        if self._train is None:
            parts = [self._read(task, "train") for task in self.tasks]
            train, val, first = [], [], 0
            for task, part in zip(self.tasks, parts, strict=True):
                count = self._limit(part, self.num_train, "num_train", task)
                held_out = self.num_val or max(round(count / 10), 1)
                if held_out >= count:
                    raise ValueError(
                        f"task {task} has {count} training questions, of which {held_out} are for validation, but at "
                        "least one must be left for training."
                    )
                train.append(np.arange(first, first + count - held_out))
                val.append(np.arange(first + count - held_out, first + count))
                first += part.num_questions
            self._train = join(parts), np.concatenate(train), np.concatenate(val)
            self._say_if_cut(parts, self.tasks, "training")
        return self._train

    def test_set(self, task: int) -> tuple[Encoded, np.ndarray]:
        """A task's test questions, and which of them are used.

        Args:
            task: one of ``tasks``.
        """
        if task not in self._tests:
            self._tests[task] = self._read(task, "test")
            self._say_if_cut([self._tests[task]], [task], "test")
        encoded = self._tests[task]
        return encoded, np.arange(self._limit(encoded, self.num_test, "num_test", task))

    def _generates(self, task: int, split: str) -> bool:
        """Whether these questions are generated although there is a folder."""
        return split == "train" and task in self.generated

    def _read(self, task: int, split: str) -> Encoded:
        if self.folder is not None and not self._generates(task, split):
            self.prepare_data()
            return genuine(self.folder, task, self.size, split)
        if split == "test":
            return generated_questions(task, _TEST_SEED, self.num_test or TEST_QUESTIONS)
        # Even numbers are training streams; the test stream is none of them.
        return generated_questions(task, 2 * self.seed, self.num_train or TRAIN_QUESTIONS[self.size])

    def _limit(self, encoded: Encoded, wanted: int | None, name: str, task: int) -> int:
        if wanted is not None and wanted > encoded.num_questions:
            raise ValueError(f"{name} is {wanted}, but task {task} has only {encoded.num_questions} such questions.")
        return wanted or encoded.num_questions

    def _say_if_cut(self, parts: Sequence[Encoded], tasks: Sequence[int], kind: str) -> None:
        longer = {task: part.count_longer(self.num_sentences) for task, part in zip(tasks, parts, strict=True)}
        cut = [task for task, count in longer.items() if count]
        if cut:
            warnings.warn(
                f"{sum(longer.values()):,} of {sum(part.num_questions for part in parts):,} {kind} questions (task "
                f"{', '.join(map(str, cut))}) have more than num_sentences = {self.num_sentences} sentences before "
                "them, of which the oldest are left out.",
                stacklevel=4,
            )

    @property
    def epoch_size(self) -> int:  # type: ignore[override]
        """How many training questions an epoch has, each as often as it comes."""
        encoded, items, _ = self.train_set()
        return len(repeated(encoded, items, self.repeats)[0])

    @property
    def test_names(self) -> list[str]:
        return [test_name(task) for task in self.tasks]

    def check_model(self, model: nn.Module) -> None:
        vocab_size, num_answers = getattr(model, "vocab_size", None), getattr(model, "num_answers", None)
        if vocab_size != VOCAB_SIZE or not (isinstance(num_answers, int) and NUM_ANSWERS <= num_answers <= VOCAB_SIZE):
            raise ValueError(
                f"{type(model).__name__} has vocab_size {vocab_size} and num_answers {num_answers}, but "
                f"{type(self).__name__} needs vocab_size {VOCAB_SIZE} and num_answers from {NUM_ANSWERS} to "
                f"{VOCAB_SIZE}."
            )
        fits = getattr(model, "num_sentences", None)
        if isinstance(fits, int) and fits < self.num_sentences:
            raise ValueError(
                f"{type(model).__name__} has num_sentences {fits}, but {type(self).__name__} gives it stories of up to "
                f"num_sentences = {self.num_sentences}."
            )

    def evaluate(self, model: nn.Module, batch: StoryBatch) -> Evaluation:
        # Listening costs time, and only what is shown to a person needs it.
        shown = not model.training and (self.trainer is None or self.trainer.predicting)
        return self._evaluate(model, batch, shown)

    def _evaluate(self, model: nn.Module, batch: StoryBatch, shown: bool) -> Evaluation:
        looks = shown and any(isinstance(module, Addressing) for module in model.modules())
        listening: AbstractContextManager[dict[str, Tensor]] = record(model) if looks else nullcontext({})
        with listening as trace:
            logits = model(batch.story, batch.question)
        nats = F.cross_entropy(logits.float(), batch.answer, reduction="none")
        with torch.no_grad():
            right = (logits.argmax(1) == batch.answer) & (batch.answer > UNKNOWN)
            metrics = {"error_percent": torch.where(right, 0.0, 100.0), "nats": nats.detach()}
        return Evaluation(nats.mean() * self.batch_size, metrics, StoryAnswers(logits, _by_hop(trace, model, batch)))

    def describe(self, batch: StoryBatch, outputs: StoryAnswers, item: int) -> str:
        return show.text(show.in_words(batch, outputs, item))

    @torch.no_grad()
    def draw(self, network: nn.Module, batch: StoryBatch, title: str) -> "dict[str, Figure]":
        from memnet.training.hops import draw_hops  # matplotlib is not needed before

        first = StoryBatch(*(part[:1] for part in batch))
        shown = show.in_words(first, self._evaluate(network, first, shown=True).outputs, 0)
        if not len(shown.weights):
            return {}
        sentences, supports, weights = shown.sentences, shown.supports, shown.weights
        if (shown.elsewhere >= show.USED).any():
            sentences, supports = [*sentences, show.ELSEWHERE], np.append(supports, False)
            weights = np.concatenate([weights, shown.elsewhere[:, None]], 1)
        asked = f"{shown.question}  {shown.answer} ({shown.probability:.2f})"
        if shown.right:
            asked += ", right" if shown.answer == shown.right else f", wrong: {shown.right}"
        return {"hops": draw_hops(sentences, supports, weights, f"{title}\n{asked}")}

    def batch_of(self, text: str) -> StoryBatch:
        """A story with its question, typed or in a file.

        Args:
            text: the story (see ``tasks.babi.typed``), or the name of a file that holds it.

        Raises:
            ValueError: it holds no question, or no sentence before it; or the file is not valid UTF-8.
        """
        encoded = encode_stories([story_of(_content(text))], 0)
        if len(encoded.unknown):
            warnings.warn(
                f"--input has words that no bAbI task has and are read as unknown: {', '.join(encoded.unknown)}.",
                stacklevel=2,
            )
        self._say_if_cut([encoded], [0], "typed")
        return encoded.batch(np.array([0]), self.num_sentences)

    def published(self) -> dict[str, dict[str, float]]:
        return published_errors(self.size, self.tasks, len(self.tasks) > 1)

    def summary(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return mean_and_failed(rows, [self.monitor], published_rows(self.size, self.tasks, len(self.tasks) > 1))

    def notes(self) -> list[str]:
        return other_rows(self.size, self.tasks, len(self.tasks) > 1)

    def train_dataloader(self) -> ItemBatches[StoryBatch]:
        """The endless training stream, from batch ``batches_consumed`` on."""
        encoded, items, _ = self.train_set()
        key = stream_key(TRAIN, self.seed)
        stream = TrainingStream(
            encoded, items, self.repeats, key, self.num_sentences, exchange=self.exchange, reorder=self.reorder
        )
        order = stream.order(self.batch_size, self.by_story)
        rank, num_ranks = self.ranks()
        return ItemBatches(stream.batch, order, self.batches_consumed, rank=rank, num_ranks=num_ranks)

    def val_dataloader(self) -> ItemBatches[StoryBatch]:
        """The questions held out of training, in their order."""
        encoded, _, items = self.train_set()
        return self._fixed(encoded, items)

    def test_dataloader(self) -> list[ItemBatches[StoryBatch]]:
        """The test questions of each task, in their order."""
        return [self._fixed(*self.test_set(task)) for task in self.tasks]

    def predict_dataloader(self) -> ItemBatches[StoryBatch]:
        """A few questions held out of training, of each task in turn."""
        encoded, _, items = self.train_set()
        first_of_tasks = [items[encoded.tasks[items] == task] for task in self.tasks]
        longest = min(map(len, first_of_tasks))
        in_turn = np.stack([own[:longest] for own in first_of_tasks], 1).reshape(-1)
        return self._fixed(encoded, in_turn[: self.eval_batch_size])

    def _fixed(self, encoded: Encoded, items: np.ndarray) -> ItemBatches[StoryBatch]:
        order = InOrder(len(items), self.eval_batch_size)
        rank, num_ranks = self.ranks()
        return ItemBatches(
            lambda places: encoded.batch(items[places], self.num_sentences),
            order,
            num_batches=order.num_batches,
            rank=rank,
            num_ranks=num_ranks,
        )


def _task_numbers(tasks: int | list[int] | str) -> tuple[int, ...]:
    if tasks == "all":
        return tuple(range(1, NUM_TASKS + 1))
    if isinstance(tasks, str):
        raise ValueError(f"tasks is {tasks!r}, but must be a task's number, several numbers, or all.")
    numbers = tasks if isinstance(tasks, list | tuple) else [tasks]
    chosen = tuple(check_task("tasks", number) for number in numbers)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"tasks is {tasks!r}, but must name at least one task, and each once.")
    return chosen


def _by_hop(trace: dict[str, Tensor], model: nn.Module, batch: StoryBatch) -> Float[Tensor, "batch hop slot"] | None:
    """The weights of whatever looks at the sentences, in the order of the model's modules and then of time.

    It has a slot for each sentence of the batch, or as many slots as the model says that its memory has; not the slots
    of a model that holds something else in so many (``num_slots``).
    """
    sizes = {batch.story.shape[1], getattr(model, "num_sentences", None)} - {getattr(model, "num_slots", None)}
    looks = [
        rearrange(weights, "batch time head slot -> batch (time head) slot")
        for weights in trace.values()
        if len(weights) == len(batch.story) and weights.shape[-1] in sizes
    ]
    return torch.cat(looks, 1) if looks else None


def _content(text: str) -> str:
    """What a file holds, if the text is its name."""
    try:
        if "\n" in text or not Path(text).is_file():
            return text
        return Path(text).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"--input is {text}, but that file is not valid UTF-8.") from error
    except OSError:
        return text  # longer than a file's name may be
