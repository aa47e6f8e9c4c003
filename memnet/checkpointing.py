"""A part of a computation that leaves nothing behind but what goes in and what comes out.

``torch.utils.checkpoint`` frees the numbers within, but keeps a node of the graph for every operation, and over ten
thousand small steps these are most of the memory; its other form frees both, but cannot be differentiated by
``torch.autograd.grad``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


def checkpoint(module: nn.Module, *arguments: Any) -> Any:
    """``module(*arguments)``, computed once more in the backward pass with the same random numbers.

    Args:
        module: what is called; its parameters get gradients.
        *arguments: any nesting of tensors and other things. Tensors elsewhere that need gradients get none.
    """
    leaves, spec = tree_flatten(arguments)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    parameters = dict(module.named_parameters())
    call = _Call(module, leaves, places, spec, list(parameters))
    flat = _Recomputed.apply(call, *(leaves[place] for place in places), *parameters.values())
    return call.rebuild(flat)


class _Call:
    """How to make the call from its tensors alone."""

    def __init__(self, module: nn.Module, leaves: list[Any], places: list[int], spec: TreeSpec, names: list[str]):
        self._module = module
        self._others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = places
        self._spec = spec
        self._names = names
        self._outputs: tuple[list[Any], TreeSpec] = ([], spec)
        self._output_places: list[int] = []

    def run(self, tensors: tuple[Tensor, ...], own_parameters: bool) -> list[Tensor]:
        """The tensors that come out.

        Args:
            tensors: the arguments' and then the parameters.
            own_parameters: whether the module is called with the parameters given, not with those it has.
        """
        leaves = list(self._others)
        for place, tensor in zip(self._places, tensors, strict=False):
            leaves[place] = tensor
        arguments = tree_unflatten(leaves, self._spec)
        if own_parameters:
            given = dict(zip(self._names, tensors[len(self._places) :], strict=True))
            outputs = torch.func.functional_call(self._module, given, arguments)
        else:
            outputs = self._module(*arguments)
        flat, spec = tree_flatten(outputs)
        self._outputs = [None if isinstance(leaf, Tensor) else leaf for leaf in flat], spec
        self._output_places = [place for place, leaf in enumerate(flat) if isinstance(leaf, Tensor)]
        return [flat[place] for place in self._output_places]

    def rebuild(self, tensors: tuple[Tensor, ...]) -> Any:
        """What the module returned, from its tensors."""
        others, spec = self._outputs
        leaves = list(others)
        for place, tensor in zip(self._output_places, tensors, strict=True):
            leaves[place] = tensor
        return tree_unflatten(leaves, spec)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.random = torch.get_rng_state()
        ctx.devices = sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
        ctx.device_random = [torch.cuda.get_rng_state(device) for device in ctx.devices]
        ctx.autocast = {kind: _autocast(kind) for kind in ("cpu", "cuda")}
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        outputs = tuple(call.run(tensors, own_parameters=False))
        ctx.mark_non_differentiable(*(each for each in outputs if not each.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        tensors = [
            tensor.detach().requires_grad_(want and tensor.is_floating_point())
            for tensor, want in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.random.fork_rng(devices=ctx.devices), torch.enable_grad():
            torch.set_rng_state(ctx.random)
            for device, state in zip(ctx.devices, ctx.device_random, strict=True):
                torch.cuda.set_rng_state(state, device)
            with torch.autocast("cpu", **ctx.autocast["cpu"]), torch.autocast("cuda", **ctx.autocast["cuda"]):
                outputs = ctx.call.run(tuple(tensors), own_parameters=True)
        pairs = [
            (output, gradient)
            for output, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None and output.requires_grad
        ]
        sources = [tensor for tensor in tensors if tensor.requires_grad]
        if not pairs or not sources:
            return None, *(None for _ in tensors)
        found = iter(
            torch.autograd.grad([output for output, _ in pairs], sources, [g for _, g in pairs], allow_unused=True)
        )
        return None, *(next(found) if tensor.requires_grad else None for tensor in tensors)


def _autocast(kind: str) -> dict[str, Any]:
    return {
        "enabled": torch.is_autocast_enabled(kind),
        "dtype": torch.get_autocast_dtype(kind),
        "cache_enabled": torch.is_autocast_cache_enabled(),
    }
