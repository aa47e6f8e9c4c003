"""A training step, as a way of doing work."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class TrainingStep:
    """Forward, loss and backward; the gradients stay with the model.

    Args:
        model: what is trained.
        loss_of: runs the model and computes the loss.
        surroundings: what all of it happens in.
        parameters: whose gradients are compared, by name; all of the model's if None.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[], Tensor],
        surroundings: Callable[[], AbstractContextManager[None]] = nullcontext,
        parameters: Mapping[str, Tensor] | None = None,
    ):
        self.model = model
        self.loss_of = loss_of
        self.surroundings = surroundings
        self.parameters = parameters if parameters is not None else dict(model.named_parameters())
        self.loss = torch.zeros(())

    def __call__(self) -> None:
        """One step."""
        self.model.zero_grad(set_to_none=True)
        with self.surroundings():
            self.loss = self.loss_of()
            self.loss.backward()

    def results(self) -> dict[str, Tensor]:
        """Loss and gradients of the last step."""
        gradients = {f"gradient of {name}": x.grad for name, x in self.parameters.items() if x.grad is not None}
        return {"loss": self.loss, **gradients}
