"""Numbers that went wrong: what broke, where it began and at which step; then training stops, or goes back."""

import copy
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from memnet.checks import check_positive
from memnet.loading import read_checkpoint
from memnet.training.averaging import AveragedWeights
from memnet.training.diagnosis import bad_gradient, first_bad, plain, tensors_in, too_large_gradient, trace
from memnet.training.experiment import Experiment, NonFiniteError
from memnet.training.writing import write_whole

# The largest loss of so many first steps is that of a network that knows nothing yet.
_FIRST_STEPS = 100
# So many numbers are copied in less time than a call for each of some ten tensors takes.
_FEW = 2**17
_PREFIX = "network."
_SPOILT = "the training batch holds NaN or infinite values"


class _Numbers(NamedTuple):
    step: int
    loss: Tensor
    norm: Tensor


class _Given(NamedTuple):
    step: int
    sequences: int
    batch: Any


def wide_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all numbers in all tensors; exact where the squares of float32 numbers are beyond float32.

    Args:
        tensors: one or more.
    """
    return torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(each, dtype=torch.float64) for each in tensors])
    )


def quick_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all numbers in all tensors, with the fewest calls where there are not many of them on a CPU.

    Args:
        tensors: any number.
    """
    if sum(each.numel() for each in tensors) <= _FEW and all(each.is_cpu for each in tensors):
        return torch.linalg.vector_norm(torch.cat([each.flatten() for each in tensors] or [torch.zeros(1)]))
    return get_total_norm(tensors)


class NumericalHealth(Callback):
    """Looks at the loss and the gradients' norm before each step of the optimiser.

    A loss or a gradient that is NaN or infinite, or has exploded, is traced: the batch is run once more on a copy of
    the network, with every module listened to. One sentence says in which module and at which step it began; the batch
    and that sentence are written to ``health/step_<N>.pt`` in the run folder, to be read with
    ``torch.load(path, weights_only=True)``. The weights are still those of the step before, and neither ``best.ckpt``
    nor ``last.ckpt`` is written.

    The norm is the one that clipping needs, so where gradients are clipped by it nothing is computed twice. On an
    accelerator everything waits for a number that is read; there numbers are kept and read every ``log_every_n_steps``,
    and what is traced is the first bad batch on the weights of ``last.ckpt``. Several processes exchange what they have
    read, so that all stop, or go back, at the same step.

    Args:
        then: ``stop`` ends training with an error. ``roll_back`` goes back to the weights and the optimiser's state of
            ``last.ckpt`` and on with the next batch; a batch that itself holds NaN is left out, and nothing else.
        loss_growth: the loss has exploded when its magnitude exceeds so many times the largest of the first 100 steps,
            or so many where that is below 1; above 1, None for never.
        max_gradient_norm: gradients have exploded when their norm, before clipping, exceeds this; above 0, None for
            never, as clipping makes a large one harmless.
        every: after how many steps numbers are read; None for 1 on a CPU, and ``log_every_n_steps`` elsewhere.
        most_rollbacks: training stops when it would have to go back more often than this.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        then: Literal["stop", "roll_back"] = "stop",
        loss_growth: float | None = 1e4,
        max_gradient_norm: float | None = None,
        every: int | None = None,
        most_rollbacks: int = 5,
    ):
        if then not in ("stop", "roll_back"):
            raise ValueError(f"then is {then!r}, but must be stop or roll_back.")
        if loss_growth is not None and not loss_growth > 1:
            raise ValueError(f"loss_growth is {loss_growth}, but must be above 1, or none.")
        if max_gradient_norm is not None and not max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm is {max_gradient_norm}, but must be above 0, or none.")
        self.then = then
        self.loss_growth = loss_growth
        self.max_gradient_norm = math.inf if max_gradient_norm is None else max_gradient_norm
        self.every = None if every is None else check_positive("every", every)
        self.most_rollbacks = check_positive("most_rollbacks", most_rollbacks)
        self.rollbacks = 0
        self._first_losses: list[float] = []
        self._largest = 0.0
        self._given: list[_Given] = []
        self._numbers: list[_Numbers] = []

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to judge as this one does."""
        return {"rollbacks": self.rollbacks, "first_losses": list(self._first_losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.rollbacks = state_dict["rollbacks"]
        self._first_losses = list(state_dict["first_losses"])
        self._largest = max(self._first_losses, default=0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds out what can be seen here, and at what price."""
        assert isinstance(pl_module, Experiment)
        pl_module.watched = True
        precision = trainer.precision_plugin
        # A scaler meets infinite gradients on purpose and leaves such steps out; sharded ones are not all here.
        self._sees_gradients = (
            isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)
            and getattr(precision, "scaler", None) is None
            and type(precision).clip_grad_by_norm is Precision.clip_grad_by_norm
        )
        self._clips = bool(trainer.gradient_clip_val) and trainer.gradient_clip_algorithm != "value"
        log_every = max(trainer.log_every_n_steps, 1)  # type: ignore[attr-defined]
        self._every = self.every or (1 if pl_module.device.type == "cpu" else log_every)
        self._alone = trainer.world_size == 1
        self._given.clear()
        self._numbers.clear()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch until its numbers are read."""
        assert isinstance(pl_module, Experiment)
        self._given.append(_Given(trainer.global_step + 1, pl_module.sequences, batch))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Reads the numbers of this step, or keeps them to be read later."""
        assert isinstance(pl_module, Experiment)
        loss = norm = pl_module.latest_loss
        if self._sees_gradients:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            gradients = [each.grad for each in parameters if each.grad is not None]
            norm = self._norm(gradients)
            pl_module.gradient_norm = norm
        if self._every == 1 and self._alone:
            # The way of nearly every step on a CPU.
            value = loss.item()
            if self._is_fine(value, norm.item()):
                self._learn(value)
                self._given.clear()
                return
        step = trainer.global_step + 1
        self._numbers.append(_Numbers(step, loss, norm))
        if step % self._every == 0 and self._read(trainer, pl_module, optimizer, step):
            # Without gradients the optimiser leaves its step out.
            optimizer.zero_grad(set_to_none=True)
            pl_module.leave_out()

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        # Clipping makes any finite gradient harmless, if only its norm can be told. Float64 costs next to nothing on a
        # GPU, where to look first would cost more; on a CPU it is the other way round, and others may not have it.
        if not (self._clips and gradients):
            return quick_norm(gradients)
        if self._every > 1 and gradients[0].is_cuda:
            return wide_norm(gradients)
        norm = get_total_norm(gradients)
        return wide_norm(gradients) if gradients[0].is_cpu and norm.isinf() else norm

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads what there is, before anything is saved."""
        if self._numbers and trainer.state.fn == "fit":
            assert isinstance(pl_module, Experiment)
            self._read(trainer, pl_module, trainer.optimizers[0], None)

    def _is_fine(self, loss: float, norm: float) -> bool:
        # Neither comparison holds for NaN.
        return abs(loss) <= self._largest_allowed() and norm <= self.max_gradient_norm and norm < math.inf

    def _largest_allowed(self) -> float:
        if self.loss_growth is None or len(self._first_losses) < _FIRST_STEPS:
            return 1.7e308
        return self.loss_growth * max(self._largest, 1.0)

    def _learn(self, loss: float) -> None:
        if len(self._first_losses) < _FIRST_STEPS:
            self._first_losses.append(abs(loss))
            self._largest = max(self._largest, abs(loss))

    def _read(self, trainer: pl.Trainer, experiment: Experiment, optimizer: Optimizer, current: int | None) -> bool:
        """Whether training went back, because of the numbers kept; ``current`` is the step that is being taken."""
        losses = torch.stack([each.loss.float() for each in self._numbers]).tolist()
        norms = torch.stack([each.norm.double() for each in self._numbers]).tolist()
        steps = [each.step for each in self._numbers]
        bad_losses = [step for step, loss in zip(steps, losses, strict=True) if not self._is_fine(loss, 0.0)]
        bad_norms = [step for step, norm in zip(steps, norms, strict=True) if not self._is_fine(0.0, norm)]
        if self._alone:
            first = min([*bad_losses, *bad_norms], default=None)
        else:
            # Nobody may leave alone: the others would wait for it for ever.
            bad = torch.tensor(float(min([*bad_losses, *bad_norms], default=math.inf)), device=experiment.device)
            bad = trainer.strategy.reduce(bad, reduce_op="min")
            first = None if math.isinf(bad.item()) else int(bad.item())
        if first is None:
            for loss in losses:
                self._learn(loss)
        else:
            at = steps.index(first) if first in steps else -1
            sentence, batch_only = self._explain(trainer, experiment, first, losses[at], norms[at], first == current)
            if self.then == "stop":
                raise NonFiniteError(f"{sentence}; a lower learning rate or tighter clipping may help.")
            self._roll_back(trainer, experiment, optimizer, sentence, batch_only)
        self._numbers.clear()
        self._given.clear()
        return first is not None

    def _explain(
        self, trainer: pl.Trainer, experiment: Experiment, step: int, loss: float, norm: float, amid: bool
    ) -> tuple[str, bool]:
        """What went wrong, and whether it was nothing but the batch, before any harm was done."""
        given = [each for each in self._given if each.step == step] or self._given[-1:]
        spoilt = next((each for each in given if first_bad(tensors_in(each.batch)) is not None), None)
        cause, guilty = self._cause(trainer, experiment, given, amid)
        what = self._what(loss, norm)
        if spoilt is not None:
            guilty, what = spoilt, _SPOILT
            cause = f"its {first_bad(tensors_in(spoilt.batch))}"
        own = (trainer.global_rank, spoilt is not None or not self._is_fine(loss, 0.0), what, cause)
        reports = _gather(own, trainer.world_size)
        # The one whose own loss went wrong; else one who finds a cause.
        rank, _, what, cause = max(reports, key=lambda report: (report[1], report[3] is not None, -report[0]))
        path = Path(trainer.default_root_dir, "health", f"step_{step}.pt")
        where = f"at step {step} ({given[-1].sequences:,} sequences)"
        if trainer.world_size > 1:
            where += f" in process {rank}"
        sentence = f"{what} {where}; it began in {cause or 'nothing that a second run of the batch shows'}"
        if trainer.global_rank == rank:
            content = {
                "step": step,
                "sequences": given[-1].sequences,
                "finding": sentence,
                "batch": plain(guilty.batch),
            }
            sentence += f"; {_write(path, content)}"
        sentence = _gather(sentence, trainer.world_size)[rank]
        return sentence, amid and any(_SPOILT in report[2] for report in reports)

    def _what(self, loss: float, norm: float) -> str:
        if not math.isfinite(loss):
            return f"the training loss became {loss}"
        if not self._is_fine(loss, 0.0):
            return f"the training loss exploded to {loss:.3g}, where the first steps had at most {self._largest:.3g},"
        return f"the gradients' norm became {norm:.3g}"

    def _cause(
        self, trainer: pl.Trainer, experiment: Experiment, given: list[_Given], amid: bool
    ) -> tuple[str | None, _Given]:
        network = experiment.network
        if not amid:
            network = self._last_network(trainer, network)
        for each in given:
            found = trace(experiment.task, network, each.batch)
            if found is not None:
                return found, each
        gradient = bad_gradient(experiment.network)
        if gradient is not None:
            return f"the gradient of {gradient}", given[-1]
        held = first_bad(experiment.network.named_parameters())
        if held is not None:
            return f"the parameter {held}", given[-1]
        return too_large_gradient(experiment.network), given[-1]

    @staticmethod
    def _last_network(trainer: pl.Trainer, network: nn.Module) -> nn.Module:
        """The network with the weights of ``last.ckpt``, as its own may be spoilt by now."""
        last = Path(trainer.default_root_dir, "checkpoints", "last.ckpt")
        if not last.is_file():
            return network
        content = read_checkpoint(last)
        weights = content.get("training_weights", content["state_dict"])
        earlier = copy.deepcopy(network)
        earlier.load_state_dict(
            {name.removeprefix(_PREFIX): each for name, each in weights.items() if name.startswith(_PREFIX)}
        )
        return earlier

    def _roll_back(
        self, trainer: pl.Trainer, experiment: Experiment, optimizer: Optimizer, sentence: str, batch_only: bool
    ) -> None:
        self.rollbacks += 1
        if self.rollbacks > self.most_rollbacks:
            raise NonFiniteError(f"{sentence}; training went back {self.most_rollbacks} times before, so it ends here.")
        last = Path(trainer.default_root_dir, "checkpoints", "last.ckpt")
        kept = "the batch is left out"
        if not batch_only:
            if not last.is_file():
                raise NonFiniteError(f"{sentence}; there is no last.ckpt yet to go back to.")
            content = read_checkpoint(last)
            experiment.load_state_dict(content["state_dict"])
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, AveragedWeights):
                    callback.on_load_checkpoint(trainer, experiment, content)
            # The learning rate goes on with its schedule.
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": content["optimizer_states"][0]["state"], "param_groups": groups})
            experiment.forget_pending()
            kept = f"going back to the weights of step {content['global_step']}"
        if trainer.is_global_zero:
            print(f"note: {sentence}; {kept}.", flush=True)


def _gather(own: Any, world_size: int) -> list[Any]:
    if world_size == 1:
        return [own]
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, own)
    return parts


def _write(path: Path, content: dict[str, Any]) -> str:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        return f"the batch could not be written ({error})"
    return f"the batch is in {path}"
