"""What the checks of schemes and of cells have in common: scales to try, gradients, sentences."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

SCALES = (0.0, 1e-5, 1.0, 1e4)


def tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def take(state: Any, items: list[int]) -> Any:
    return tree_map(lambda x: x[items] if isinstance(x, Tensor) else x, state)


def project(tensors: Sequence[Any]) -> Tensor:
    """A scalar that every number has its own part in."""
    draw = torch.Generator().manual_seed(2)
    numbers = [x for x in tensors if isinstance(x, Tensor) and x.is_floating_point()]
    directions = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x.dtype) for x in numbers]
    return torch.stack([(x * direction).sum() for x, direction in zip(numbers, directions, strict=True)]).sum()


def gradients(loss: Tensor, sources: Sequence[Any]) -> list[Tensor]:
    wanted = [x for x in sources if isinstance(x, Tensor) and x.requires_grad]
    if not loss.requires_grad:
        return [torch.zeros_like(x) for x in wanted]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True, retain_graph=True))


def shape_and_dtype(x: Any) -> Any:
    return (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x


def class_name(module: nn.Module) -> str:
    return type(module).__name__


def require(condition: bool, module: nn.Module, sentence: str) -> None:
    if not condition:
        raise AssertionError(f"{class_name(module)}: {sentence}")


def require_close(actual: Any, expected: Any, module: nn.Module, sentence: str) -> None:
    # In float64, where rounding stays some five digits below these tolerances.
    for x, y in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        if isinstance(x, Tensor):
            torch.testing.assert_close(x, y, msg=lambda detail: f"{class_name(module)}: {sentence}\n{detail}")


def require_finite(x: Any, module: nn.Module, sentence: str) -> None:
    require(not isinstance(x, Tensor) or bool(torch.isfinite(x).all()), module, sentence)


def require_state(module: nn.Module, state: Any, batch: int) -> None:
    require(state is None or hasattr(state, "_fields"), module, "the state must be a NamedTuple or None.")
    for x in _state_leaves(module, state):
        form = f"every tensor of the state must have the batch ({batch}) first, and one is {tuple(x.shape)}."
        require(x.dim() > 0 and x.shape[0] == batch, module, form)


def _state_leaves(module: nn.Module, state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        named = hasattr(state, "_fields")
        require(named, module, f"a state may hold tensors, NamedTuples and None, but holds a {type(state).__name__}.")
        for part in state:
            yield from _state_leaves(module, part)


def require_used(module: nn.Module, loss: Tensor) -> None:
    names, parameters = [n for n, _ in module.named_parameters()], list(module.parameters())
    for name, gradient in zip(names, gradients(loss, parameters), strict=True):
        require(bool(gradient.any()), module, f"every parameter must get a gradient, and {name} gets none.")


def snapshot(module: nn.Module) -> dict[tuple[str, str], Any]:
    """Everything that every module keeps, tensors copied."""
    return {
        (path, name): tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
    }


def require_unchanged(module: nn.Module, before: dict[tuple[str, str], Any]) -> None:
    after = snapshot(module)
    for path, name in before.keys() | after.keys():
        old, new = tree_leaves(before.get((path, name))), tree_leaves(after.get((path, name)))
        same = len(old) == len(new) and all(_equal(x, y) for x, y in zip(old, new, strict=True))
        where = ".".join(filter(None, [path, name]))
        require(same, module, f"a step must keep nothing on the module, and it changed {where}.")


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return isinstance(x, Tensor) and isinstance(y, Tensor) and torch.equal(x, y)
    return x is y or bool(x == y)
