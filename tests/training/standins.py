"""Small networks, tasks and callbacks that the training tests name by class path."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import tasks


class Dropping(nn.Module):
    """A recurrent network with dropout: its training depends on the state of the random generator.

    Args:
        input_size: width of the input.
        output_size: width of the output.
    """

    def __init__(self, input_size: int, output_size: int):
        super().__init__()
        self.input_size, self.output_size = input_size, output_size
        self.recurrent = nn.GRU(input_size, 8, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.answer = nn.Linear(8, output_size)

    def forward(self, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        hidden, state = self.recurrent(inputs, state)
        return self.answer(self.drop(hidden)), state


class Diverging(Dropping):
    """Answers infinity from its fifth training step on."""

    steps = 0

    def forward(self, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        outputs, state = super().forward(inputs, state, lengths)
        self.steps += self.training
        return outputs * (float("inf") if self.steps >= 5 and self.training else 1.0), state


class SpoiltCopy(tasks.Copy):
    """The copy task, with a NaN in its fifth training batch."""

    def train_dataloader(self) -> Iterator[Any]:
        for number, batch in enumerate(super().train_dataloader()):
            if number == 4:
                batch.inputs[0, 0, 0] = float("nan")
            yield batch


class SignalAt(pl.Callback):
    """Sends this process a signal after a step.

    Args:
        step: which.
        name: the signal's name.
    """

    def __init__(self, step: int, name: str):
        self.step, self.name = step, name

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), getattr(signal, self.name))


class SignalAmid(pl.Callback):
    """Sends this process a signal amid a step, after the backward pass.

    Args:
        step: how many steps were taken before.
        name: the signal's name.
        times: how often.
    """

    def __init__(self, step: int, name: str, times: int):
        self.step, self.name, self.times = step, name, times

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), getattr(signal, self.name))


class FailAt(pl.Callback):
    """Fails amid a step, after the backward pass.

    Args:
        step: how many steps were taken before.
    """

    def __init__(self, step: int):
        self.step = step

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step:
            raise ValueError("failed as it was told")


class FailInValidation(pl.Callback):
    """Fails in the first validation after training has begun."""

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if not trainer.sanity_checking:
            raise ValueError("failed as it was told")


class KeepWeights(pl.Callback):
    """Writes the weights after every training step to ``weights.pt``."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any) -> None:
        self.steps.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        torch.save(self.steps, "weights.pt")


class KeepLastAt(pl.Callback):
    """Copies ``last.ckpt`` as it is after a step, for what a killed run would leave behind.

    Args:
        step: which.
        path: where to.
    """

    def __init__(self, step: int, path: str):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            shutil.copyfile(Path(trainer.default_root_dir, "checkpoints", "last.ckpt"), self.path)


def assert_same(one: Any, other: Any) -> None:
    """Nested dictionaries and lists of tensors are equal, to the bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


class SpellingCopy(tasks.Copy):
    """The copy task with what tasks on text add: answers over a whole set, and examples that can be typed."""

    def evaluate(self, model: nn.Module, batch: Any) -> tasks.Evaluation:
        evaluation = super().evaluate(model, batch)
        texts = [str(int(length)) for length in batch.lengths]
        return evaluation._replace(answers=None if model.training else [(text, "3") for text in texts])

    def corpus_metrics(self, answers: list[tuple[str, str]], means: dict[str, float]) -> dict[str, float]:
        return {"answers": len(answers), "right": sum(given == true for given, true in answers)}

    def batch_of(self, text: str) -> tasks.SequenceBatch:
        if not text.isdigit():
            raise ValueError(f"--input is {text!r}, but must be a number.")
        batch = next(iter(self.val_dataloader()))
        return tasks.SequenceBatch(*(part[: int(text)] for part in batch))


class Spoil(pl.Callback):
    """Plants a number into the training: a parameter, a gradient, or the training batch.

    Args:
        where: ``parameter``, ``gradient`` or ``batch``.
        step: at which step, counted from 1.
        value: what is planted.
        name: of the parameter; the last one that matches.
        rank: in which process.
    """

    def __init__(self, where: str, step: int, value: float = float("nan"), name: str = "answer", rank: int = 0):
        self.where, self.step, self.value, self.name, self.rank = where, step, value, name, rank

    def _plant(self, where: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor | None:
        if (where, self.step, self.rank) != (self.where, trainer.global_step + 1, trainer.global_rank):
            return None
        return [each for name, each in pl_module.named_parameters() if self.name in name][-1]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *rest: Any) -> None:
        parameter = self._plant("parameter", trainer, pl_module)
        if parameter is not None:
            parameter.data.view(-1)[0] = self.value
        if self._plant("batch", trainer, pl_module) is not None:
            batch.inputs[0, 0, 0] = self.value

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parameter = self._plant("gradient", trainer, pl_module)
        if parameter is not None:
            assert parameter.grad is not None
            parameter.grad.view(-1)[0] = self.value


class Overflowing(Dropping):
    """Its layer ``middle`` answers infinity from its fifth training step on, or has a NaN gradient.

    Args:
        backwards: whether only the gradient goes wrong.
    """

    def __init__(self, input_size: int, output_size: int, backwards: bool = False):
        super().__init__(input_size, output_size)
        self.middle = Middle(backwards)

    def forward(self, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        hidden, state = self.recurrent(inputs, state)
        return self.answer(self.middle(self.drop(hidden))), state


class Middle(nn.Module):
    """See ``Overflowing``."""

    def __init__(self, backwards: bool):
        super().__init__()
        self.backwards = backwards
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps < 5 or not self.training:
            return hidden
        # The root's slope at 0 is infinite, and 0 times that is NaN.
        return hidden + 0 * (hidden - hidden).sqrt() if self.backwards else hidden * float("inf")
