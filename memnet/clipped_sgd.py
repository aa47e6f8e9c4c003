"""How memory networks are trained (Sukhbaatar et al. 2015, sec. 4.2), one of them or many at once."""

from collections.abc import Callable
from typing import Any, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer, ParamsT

from memnet.checks import check_greater_than_zero, check_positive


class ClippedSGD(Optimizer):
    """Stochastic gradient descent; the gradient of each weight matrix by itself is scaled down to a largest norm.

    In the paper "gradients with an l2 norm larger than 40 are divided by a scalar to have norm 40".

    Args:
        params: what to optimise.
        lr: learning rate, > 0.
        max_norm: the largest norm of a gradient, > 0.
        num_members: how many models the parameters hold side by side along their first axis, as in
            ``memnet.Ensemble``; each has norms of its own and may have a learning rate of its own. None for one model.

    Raises:
        ValueError: a setting is out of its range, or a parameter's first axis does not count ``num_members``.
    """

    def __init__(
        self, params: ParamsT, lr: float = 0.005, max_norm: float = 40.0, num_members: int | None = None
    ) -> None:
        check_greater_than_zero("lr", lr)
        check_greater_than_zero("max_norm", max_norm)
        self.num_members = None if num_members is None else check_positive("num_members", num_members)
        super().__init__(params, {"lr": lr, "max_norm": max_norm, "member_lrs": None})
        for group in self.param_groups:
            for p in group["params"]:
                if num_members is not None and (p.dim() == 0 or len(p) != num_members):
                    raise ValueError(
                        f"num_members is {num_members}, but a parameter has shape {tuple(p.shape)}: its first axis "
                        "must be the members'."
                    )

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
            rate = group["lr"] if group["member_lrs"] is None else group["member_lrs"]
            for p in group["params"]:
                if p.grad is not None:
                    kept_axes = 0 if self.num_members is None else 1
                    norm = torch.linalg.vector_norm(p.grad, dim=tuple(range(kept_axes, p.dim())), keepdim=True)
                    scale = (group["max_norm"] / norm).clamp(max=1) * _like(rate, norm)
                    p.addcmul_(p.grad, scale, value=-1)
        return loss


class HalvingLR(LRScheduler):
    """Halves the learning rate every so many steps, in an ensemble by each member's own count of them.

    The count can be held, and started anew: ``memnet.training.LinearStart`` starts it when the softmax comes in.

    Args:
        optimizer: whose learning rate it is; for an ensemble a ``ClippedSGD``.
        every: how many steps have the same learning rate.
        until: after so many steps the learning rate is 0; None for never. For an ensemble whose members were started at
            different times and are to be trained equally long.

    Raises:
        ValueError: a number of steps is not positive.
    """

    def __init__(self, optimizer: Optimizer, every: int, until: int | None = None) -> None:
        self.every = check_positive("every", every)
        self.until = None if until is None else check_positive("until", until)
        self.num_members: int | None = getattr(optimizer, "num_members", None)
        self.counts = torch.zeros(self.num_members or 1, dtype=torch.int64)
        self.held = torch.zeros(self.num_members or 1, dtype=torch.bool)
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Called after each step of the optimiser."""
        if self.last_epoch >= 0:
            self.counts += ~self.held
        super().step()
        self._apply()

    def hold(self, members: Bool[Tensor, " member"]) -> None:
        """Which members' counts stand still from now on; the others go on.

        Args:
            members: True for those.
        """
        self.held = members.cpu().clone()

    def start(self, members: Bool[Tensor, " member"]) -> None:
        """Begins some members' counts anew, held or not.

        Args:
            members: True for those.
        """
        members = members.cpu()
        self.counts[members] = 0
        self.held &= ~members
        self._apply()

    def factors(self) -> Float[Tensor, " member"]:
        """What the learning rate is multiplied by, for each member."""
        factors = 0.5 ** (self.counts // self.every).float()
        return factors if self.until is None else factors * (self.counts < self.until)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each of the optimiser's groups, the mean over members."""
        return [float(rate) * float(self.factors().mean()) for rate in self.base_lrs]

    def _apply(self) -> None:
        for group, base, mean in zip(self.optimizer.param_groups, self.base_lrs, self.get_lr(), strict=True):
            group["lr"] = mean
            if self.num_members is not None:
                group["member_lrs"] = base * self.factors()


def _like(rate: float | Tensor, norm: Tensor) -> float | Tensor:
    """One rate, or one for each entry of the norm's first axis."""
    return rate if isinstance(rate, float | int) else rate.to(norm).reshape(norm.shape)
