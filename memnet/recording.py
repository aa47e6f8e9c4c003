"""A trace of where every head looked, without any model storing its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memnet.addressing.base import Addressing


class Trace(dict[str, Float[Tensor, "batch time head slot"]]):
    """Weights by the name of the addressing module that made them. Filled when the recording ends."""


@contextmanager
def record(model: nn.Module) -> Iterator[Trace]:
    """Collects the weights of every addressing in ``model`` while the block runs.

    Steps of several calls follow one another in time, so calls must have the same batch size. Steps beyond a sequence's
    length are recorded as the cell computed them. The weights are detached.

    >>> import torch, memnet
    >>> model = memnet.NTM(input_size=9, output_size=8, num_slots=16, slot_size=4)
    >>> with memnet.record(model) as trace:
    ...     outputs, state = model(torch.zeros(2, 5, 9))
    >>> trace["cell.access.write_addressing"].shape
    torch.Size([2, 5, 1, 16])

    Raises:
        ValueError: ``model`` has no addressing; in the block, if a call has another batch or memory size.
    """
    schemes = {name: module for name, module in model.named_modules() if isinstance(module, Addressing)}
    if not schemes:
        raise ValueError(f"model is a {type(model).__name__} without any Addressing, so there is nothing to record.")
    steps: dict[str, list[Tensor]] = {name: [] for name in schemes}
    trace = Trace()

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: tuple[Tensor, Any]) -> None:
            weights = output[0].detach()
            if steps[name] and weights.shape != steps[name][0].shape:
                before, now = tuple(steps[name][0].shape), tuple(weights.shape)
                raise ValueError(
                    f"{name} gave weights {before} and then {now}: record calls of one batch size together."
                )
            steps[name].append(weights)

        return hook

    handles = [module.register_forward_hook(hook_for(name)) for name, module in schemes.items()]
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()
        trace.update({name: torch.stack(weights, 1) for name, weights in steps.items() if weights})


def has_hooks(model: nn.Module) -> bool:
    """Whether anybody listens in on a module's calls, forward or backward; then no kernel may replace them."""
    return any(map(is_hooked, model.modules()))


def has_forward_hooks(model: nn.Module) -> bool:
    """Whether anybody listens in on forward calls, who would hear twice what is computed twice."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def is_hooked(module: nn.Module) -> bool:
    """Whether anybody listens in on the calls of this one module, whatever is in it."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
