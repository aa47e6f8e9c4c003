"""RMSProp as the Neural Turing Machine was trained with it."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim.optimizer import Optimizer, ParamsT


class GravesRMSprop(Optimizer):
    """RMSProp with momentum (Graves 2013, "Generating Sequences With Recurrent Neural Networks", eq. 38-41).

    n <- a n + (1 - a) g^2;  m <- a m + (1 - a) g;  d <- b d - lr g / sqrt(n - m^2 + eps);  w <- w + d.

    It differs from ``torch.optim.RMSprop(centered=True)`` in ``eps``, which stands inside the root and is large. Where
    gradients fall below sqrt(eps) the steps shrink with them, so a solved task stays solved; with a small eps outside
    the root every step has the size of the learning rate, however little there is left to learn.

    Args:
        params: what to optimise.
        lr: learning rate, > 0.
        alpha: a, decay of the running averages, in [0, 1).
        momentum: b, in [0, 1).
        eps: under the root, > 0.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-4, alpha: float = 0.95, momentum: float = 0.9, eps: float = 1e-4
    ):
        if not lr > 0:
            raise ValueError(f"lr is {lr}, but must be greater than 0.")
        if not eps > 0:
            raise ValueError(f"eps is {eps}, but must be greater than 0.")
        for name, value in [("alpha", alpha), ("momentum", momentum)]:
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, but must lie in [0, 1).")
        super().__init__(params, {"lr": lr, "alpha": alpha, "momentum": momentum, "eps": eps})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what ``closure`` returned, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, **{name: group[name] for name in ("lr", "alpha", "momentum", "eps")})
        return loss

    def _update(self, params: list[torch.Tensor], lr: float, alpha: float, momentum: float, eps: float) -> None:
        # A state named "step" would not follow its parameter to another device: torch and Lightning think it a count.
        for p in params:
            if not self.state[p]:
                self.state[p] = {name: torch.zeros_like(p) for name in ("square_average", "average", "update")}
        grads = [p.grad for p in params if p.grad is not None]
        square_averages, averages, steps = (
            [self.state[p][name] for p in params] for name in ("square_average", "average", "update")
        )
        torch._foreach_lerp_(averages, grads, 1 - alpha)
        torch._foreach_mul_(square_averages, alpha)
        torch._foreach_addcmul_(square_averages, grads, grads, 1 - alpha)
        variances = torch._foreach_addcmul(square_averages, averages, averages, -1)
        # Rounding may leave n - m^2 a little below 0 where the gradient hardly varies.
        torch._foreach_clamp_min_(variances, 0)
        torch._foreach_add_(variances, eps)
        torch._foreach_sqrt_(variances)
        torch._foreach_mul_(steps, momentum)
        torch._foreach_addcdiv_(steps, grads, variances, -lr)
        torch._foreach_add_(params, steps)
