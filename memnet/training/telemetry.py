"""What Weights & Biases is told beside the metrics: gradients, memory, where the heads look, pictures."""

import copy
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from memnet.addressing import Addressing
from memnet.recording import record
from memnet.training.experiment import Experiment


class Telemetry(Callback):
    """Logs, to Weights & Biases only, what says how training goes and is no result.

    Every ``log_every_n_steps``: ``gradient_norm`` before clipping, ``lr``, and the most memory used so far, in MiB. At
    each validation, over the first validation batch and for each head of each addressing module: ``entropy`` of its
    weights in nats, from 0 (one place) to the logarithm of the number of slots (everywhere), and ``sharpness``, its
    largest weight, both means over sequences and time; and the task's pictures of an example, now and then.

    Args:
        seconds_between_pictures: pictures are drawn at the first validation and then at most so often.
    """

    def __init__(self, seconds_between_pictures: float = 60.0):
        self.seconds_between_pictures = seconds_between_pictures
        self._drawn = -float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any) -> None:
        """Gradients, rate and memory."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or trainer.global_step % every:
            return
        assert isinstance(pl_module, Experiment)
        row = memory(pl_module.device) | {"lr": float(trainer.optimizers[0].param_groups[0]["lr"])}
        if pl_module.gradient_norm is not None:
            row["gradient_norm"] = float(pl_module.gradient_norm)
        _log(trainer, pl_module, row)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The heads, and the pictures where it is time."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Experiment)
        batch = next(iter(pl_module.task.val_dataloader()))
        network = copy.deepcopy(pl_module.network).cpu().eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if any(isinstance(module, Addressing) for module in network.modules()):
                _log(trainer, pl_module, heads(network, pl_module.task, batch))
            if time.monotonic() >= self._drawn + self.seconds_between_pictures:
                self._draw(trainer, pl_module, network, batch)
                self._drawn = time.monotonic()

    @staticmethod
    def _draw(trainer: pl.Trainer, experiment: Experiment, network: torch.nn.Module, batch: Any) -> None:
        from memnet.training.plotting import save_all  # matplotlib is not needed before

        title = f"{experiment.sequences:,} sequences"
        folder = Path(trainer.default_root_dir, "plots", "validation")
        pictures = save_all(experiment.task.draw(network, batch, title), folder, refresh=True)
        for logger in _wandb(trainer):
            for name, path in pictures.items():
                logger.log_image(key=f"validation/{name}", images=[str(path)])


def heads(network: torch.nn.Module, task: Any, batch: Any) -> dict[str, float]:
    """``heads/<module>/<number>/entropy`` and ``.../sharpness`` of every head.

    Args:
        network: with at least one addressing module, in eval mode.
        task: that the batch is of.
        batch: what is asked, on the network's device.
    """
    found: dict[str, float] = {}
    try:
        with record(network) as trace:
            task.evaluate(network, batch)
    except ValueError:
        return {}  # what looks at memories of different sizes cannot be put side by side
    for name, weights in trace.items():
        for head, (entropy, sharpness) in enumerate(spread(weights).tolist()):
            found |= {f"heads/{name}/{head}/entropy": entropy, f"heads/{name}/{head}/sharpness": sharpness}
    return found


def spread(weights: Float[Tensor, "batch time head slot"]) -> Float[Tensor, "head 2"]:
    """Each head's mean entropy, in nats, and mean largest weight.

    Args:
        weights: over slots; rows that are all zero look nowhere and do not count.
    """
    looking = weights.sum(-1) > 0
    shares = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    entropy = torch.special.entr(shares).sum(-1)
    counts = looking.sum((0, 1)).clamp(min=1)
    return torch.stack([(each * looking).sum((0, 1)) / counts for each in (entropy, shares.amax(-1))], -1)


def memory(device: torch.device) -> dict[str, float]:
    """The most memory that this process has used so far, in MiB: ``memory/host`` and, on a GPU, ``memory/device``.

    Args:
        device: where training happens.
    """
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    used = {"memory/host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if device.type == "cuda":
        used["memory/device"] = torch.cuda.max_memory_allocated(device) / 2**20
    return used


def _wandb(trainer: pl.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _log(trainer: pl.Trainer, experiment: Experiment, row: dict[str, float]) -> None:
    if row:
        for logger in _wandb(trainer):
            logger.log_metrics(row | {"sequences": experiment.sequences}, step=trainer.global_step)
