"""Where in a network a number first went wrong, found by running a batch once more with every module listened to."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from memnet.recording import has_hooks
from tasks.base import Task

# The squares of some hundred million such numbers, a large network, add up to more than float32 holds.
_LARGE = 1e15


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors in nested tuples, lists and dictionaries, each with the path to it.

    Args:
        value: what is searched.
        name: the path so far.
    """
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
        return
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return
    for key, part in parts:
        yield from tensors_in(part, f"{name}.{key}" if name else str(key))


def first_bad(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that is not finite, or None.

    Args:
        named: names and tensors.
    """
    return next((name for name, tensor in named if not _is_fine(tensor)), None)


def bad_gradient(network: nn.Module) -> str | None:
    """The name of the first parameter whose gradient is not finite, or None.

    Args:
        network: after a backward pass.
    """
    return first_bad(_gradients(network))


def too_large_gradient(network: nn.Module) -> str | None:
    """In words, that finite gradients are too large to be squared, or None where they are not.

    Args:
        network: after a backward pass.
    """
    sizes = {name: gradient.abs().max().item() for name, gradient in _gradients(network)}
    name = max(sizes, key=sizes.__getitem__, default=None)
    if name is None or sizes[name] < _LARGE:
        return None
    return f"gradients that are finite, but too large to be squared, first of all that of {name}"


def _gradients(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, each.grad) for name, each in network.named_parameters() if each.grad is not None)


def plain(value: Any) -> Any:
    """A batch in values that ``torch.load(..., weights_only=True)`` takes: named tuples become dictionaries.

    Args:
        value: the batch.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(part) for name, part in zip(value._fields, value, strict=True)}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def trace(task: Task, network: nn.Module, batch: Any) -> str | None:
    """In words, what first was not finite when a batch is run forwards and backwards, or None where all is.

    Neither the network nor its gradients nor torch's random numbers are changed.

    Args:
        task: makes the loss.
        network: in the state in which the batch is run.
        batch: a training batch.
    """
    held = first_bad([*network.named_parameters(), *network.named_buffers()])
    if held is not None:
        return f"{held}, which holds {_kind(network, held)}"
    listener = _Listener(copy.deepcopy(network))
    devices = {each.device.index for each in network.parameters() if each.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(index for index in devices if index is not None)), torch.enable_grad():
        try:
            loss = task.evaluate(listener.network, batch).loss
        except ValueError as error:
            return listener.first or f"what the network refuses: {str(error).rstrip('.')}"
        if listener.first is None and not _is_fine(loss):
            return "the loss itself: what the network answers is finite"
        if listener.first is None and loss.requires_grad:
            loss.backward()
            own = bad_gradient(listener.network)
            if own is not None and listener.first_backwards is None:
                return f"the gradient of {own}"
            return listener.first_backwards
    return listener.first


class _Listener:
    """Notes the first module with a bad output, and in the backward pass the first with a bad gradient."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.first: str | None = None
        self.first_backwards: str | None = None
        for name, module in network.named_modules():
            title = f"{name} ({type(module).__name__})" if name else f"the {type(module).__name__}"
            module.register_forward_pre_hook(self._before(title, name))
            module.register_forward_hook(self._after(title))
        assert has_hooks(network)  # so no kernel runs in place of the modules

    def _before(self, title: str, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            if self.first is None and name and first_bad(tensors_in(inputs)) is not None:
                parent = name.rpartition(".")[0]
                around = f"{parent} ({type(self.network.get_submodule(parent)).__name__})" if parent else "the network"
                self.first = f"{around}, in what it gives to {title}"

        return hook

    def _after(self, title: str) -> Any:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            named = list(tensors_in(outputs))
            if self.first is None and first_bad(named) is not None:
                self.first = f"what {title} gives out"
            for _, tensor in named:
                if tensor.requires_grad and self.first is None:
                    tensor.register_hook(backwards)

        def backwards(gradient: Tensor) -> None:
            if self.first_backwards is None and not _is_fine(gradient):
                self.first_backwards = f"the gradient that comes back to {title}"

        return hook


def _is_fine(tensor: Tensor) -> bool:
    # Minus infinity is how a mask or the logarithm of 0 is written; what it spoils is found where it does.
    return not bool((tensor.isnan() | tensor.isposinf()).any())


def _kind(network: nn.Module, name: str) -> str:
    tensor = dict([*network.named_parameters(), *network.named_buffers()])[name]
    return "NaN" if bool(tensor.isnan().any()) else "infinity"
