"""One-shot classification of drawn characters (Santoro et al. 2016, section 4.1), on characters that are generated."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from memnet.checks import check_positive

from .base import Evaluation, SequenceBatch
from .characters import Characters
from .sampling import TEST, TRAIN, VALIDATION, Draws, Sampler, stream_key
from .sequence import to_batch
from .streams import StreamTask

INSTANCES = (1, 2, 5, 10)


class OneShot(StreamTask):
    """Name the characters of an episode, though what their names are shows only a step after each was to be named.

    An episode shows ``num_classes`` characters ``num_instances`` times each, all in random order, each time moved,
    turned and with noise. Which character has which label is new in every episode, so that nothing can be learned by
    heart: a network must remember what it saw and the label that followed. Step t's input is the image, pixel by pixel,
    and then the label of step t - 1, one-hot (none at the first step); the target is its own label, one-hot.

    Characters are strokes drawn at random (see ``Characters``); training, validation and test have no character in
    common. The loss is the cross-entropy of the softmax over the labels, summed over an episode. Metrics: ``bits``, the
    same in bits; ``wrong``, how many images are named wrongly; ``instance 1``, ``2``, ``5`` and ``10``, as far as there
    are so many: the part of the characters named rightly when they come for the n-th time. The first can only be
    guessed: 1 / ``num_classes``.

    Args:
        num_classes: characters in an episode.
        num_instances: how often each comes.
        image_size: pixels on a side.
        num_train_characters: how many different ones are trained on; 1,200 in the paper.
        num_test_characters: how many for validation, and how many others for the test; 423 in the paper.
        noise: standard deviation of the noise on every pixel, at least 0; a line is 1 and paper 0.
        **settings: batch sizes, numbers of episodes and seed, as for ``StreamTask``.

    Raises:
        ValueError: a size is below 1, ``noise`` is negative or not finite, or there are fewer characters than
            ``num_classes``.
    """

    def __init__(
        self,
        num_classes: int = 5,
        num_instances: int = 10,
        image_size: int = 20,
        num_train_characters: int = 1200,
        num_test_characters: int = 423,
        noise: float = 0.1,
        **settings: Any,
    ) -> None:
        check_positive("num_classes", num_classes)
        check_positive("num_instances", num_instances)
        check_positive("image_size", image_size)
        for name, number in [
            ("num_train_characters", num_train_characters),
            ("num_test_characters", num_test_characters),
        ]:
            check_positive(name, number)
            if number < num_classes:
                raise ValueError(f"{name} is {number}, but must be at least num_classes, which is {num_classes}.")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise is {noise}, but must be at least 0 and finite.")
        super().__init__(**settings)
        self.input_size = image_size**2 + num_classes
        self.output_size = num_classes
        self.num_classes = num_classes
        self.num_instances = num_instances
        self.image_size = image_size
        self.noise = noise
        numbers = {TRAIN: num_train_characters, VALIDATION: num_test_characters, TEST: num_test_characters}
        # The characters are the same for every seed of the training stream.
        self.characters = {split: Characters(stream_key(split, 10_000), count) for split, count in numbers.items()}

    def sample(self, draws: Draws, split: int = TRAIN) -> SequenceBatch:
        characters = self.characters[split]
        steps = self.num_classes * self.num_instances
        # The smallest of random numbers are a choice without repetition; the order of others is a random order.
        chosen = draws.uniform(characters.count).argsort(axis=1, kind="stable")[:, : self.num_classes]
        order = draws.uniform(steps).argsort(axis=1, kind="stable")
        labels = order % self.num_classes
        shown = np.take_along_axis(chosen, labels, axis=1)
        images = characters.draw(shown, draws.uniform(steps * 3).reshape(draws.count, steps, 3), self.image_size)
        if self.noise:
            images = images + self.noise * _normal(draws, steps * self.image_size**2).reshape(images.shape)

        one_hot = np.eye(self.num_classes, dtype=np.float32)[labels]
        inputs = np.zeros((draws.count, steps, self.input_size), np.float32)
        inputs[:, :, : self.image_size**2] = images.reshape(draws.count, steps, -1)
        inputs[:, 1:, self.image_size**2 :] = one_hot[:, :-1]
        lengths = np.full(draws.count, steps, np.int64)
        return to_batch(inputs, one_hot, np.ones((draws.count, steps), bool), lengths)

    def ladder(self) -> dict[str, Sampler]:
        """Characters that neither training nor validation has."""
        return {"new characters": partial(self.sample, split=TEST)}

    def val_dataloader(self) -> Any:
        """The validation set, of characters that are not trained on."""
        return self._fixed(partial(self.sample, split=VALIDATION), VALIDATION, 0, self.num_val)

    def predict_dataloader(self) -> Any:
        """The first batch of the validation set."""
        sampler = partial(self.sample, split=VALIDATION)
        return self._fixed(sampler, VALIDATION, 0, min(self.num_val, self.eval_batch_size))

    def score(self, outputs: Float[Tensor, "batch time out"], batch: SequenceBatch, extra: bool = True) -> Evaluation:
        labels = batch.targets.argmax(-1)
        log_probs = F.log_softmax(outputs.float(), -1)
        nats = -log_probs.gather(-1, labels[..., None]).squeeze(-1).sum(1)
        with torch.no_grad():
            right = outputs.argmax(-1) == labels
            metrics = {"bits": nats / math.log(2), "wrong": (~right).sum(1).float()}
            if extra:
                metrics |= self._by_instance(batch.targets, right)
        return Evaluation(nats.mean(), metrics, outputs)

    def _by_instance(
        self, targets: Float[Tensor, "batch time out"], right: Bool[Tensor, "batch time"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        number = (targets.cumsum(1) * targets).sum(-1)  # how often the character has come by now
        return {
            f"instance {instance}": (right & (number == instance)).sum(1) / self.num_classes
            for instance in INSTANCES
            if instance <= self.num_instances
        }

    def picture(self, batch: SequenceBatch, outputs: Tensor, item: int) -> dict[str, np.ndarray]:
        targets = batch.targets[item]
        answer = outputs[item].detach().float().softmax(-1)
        images = batch.inputs[item, :, : self.image_size**2].reshape(-1, self.image_size, self.image_size)
        shown = batch.inputs[item, :, self.image_size**2 :]
        # A step is one column wide: of its image it shows the mean of every row, and then the label.
        panels = {
            "input": torch.cat([images.mean(2), shown], 1),
            "target": targets,
            "output": answer,
            "error": (answer - targets).abs(),
        }
        return {title: panel.T.cpu().numpy() for title, panel in panels.items()}

    def describe(self, batch: SequenceBatch, outputs: Tensor, item: int) -> str:
        labels = batch.targets[item].argmax(-1).tolist()
        answers = outputs[item].argmax(-1).tolist()
        seen: dict[int, int] = {}
        lines = [f"{sum(a != b for a, b in zip(labels, answers, strict=True))} of {len(labels)} images named wrongly"]
        for instance in range(1, self.num_instances + 1):
            row = []
            for label, answer in zip(labels, answers, strict=True):
                seen[label] = seen.get(label, 0) + 1
                if seen[label] == instance:
                    row.append(f"{label}" if answer == label else f"{label} (named {answer})")
            seen.clear()
            lines.append(f"time {instance:>2}: {', '.join(row)}")
        return "\n".join(lines)


def _normal(draws: Draws, size: int) -> np.ndarray:
    """Standard normal numbers, ``(count, size)`` of float32 (Box and Muller 1958)."""
    half = -(-size // 2)
    # The logarithm of float64: as float32 one number in 30 million is 1, and its radius infinite.
    radius = np.sqrt(-2 * np.log1p(-draws.uniform(half))).astype(np.float32)
    angle = (2 * np.pi) * draws.uniform(half).astype(np.float32)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
