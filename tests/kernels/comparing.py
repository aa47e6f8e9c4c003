"""The kernel against the plain loop in double precision: what the tests of this folder share."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from memnet import DNC, NTM, SAM, FeedForwardController, LSTMController, NormalizedController, kernels, unroll
from memnet.kernels import build, dnc_cell, ntm_cell, ntm_cpu, sam_cell
from memnet.sparse_links import LinkedState
from memnet.sparse_memory import SparseState

needs_library = pytest.mark.skipif(build.load(ntm_cpu.SOURCE) is None, reason="there is no C++ compiler here")

TOLERANCE = 2e-5
"""Of the largest number of a tensor: some hundred roundings of 6e-8."""

ROUNDING = 10
"""Where a result is mostly rounding, as when inputs of 1e4 are added up, the plain loop in single precision is as far
off as the kernel, up to chance: this many times its own error is allowed."""

CONTROLLERS = {
    **{f"lstm-{layers}": partial(LSTMController, hidden_size=17, num_layers=layers) for layers in (1, 2, 3)},
    **{
        f"feed-forward-{layers}": partial(FeedForwardController, hidden_size=17, num_layers=layers) for layers in (1, 2)
    },
}
DNC_CONTROLLERS = {
    **CONTROLLERS,
    **{f"normalized {name}": partial(NormalizedController, controller=make) for name, make in CONTROLLERS.items()},
}

Model = NTM | DNC | SAM

ALL_OPTIONS = {"mask_content": True, "erase_freed": True, "sharpen_links": True}
"""Of the Differentiable Neural Computer."""


class Results(NamedTuple):
    """Everything that comes out of a sequence, forwards and backwards, by name."""

    forward: dict[str, Tensor]
    gradients: dict[str, Tensor]


def make(num_slots: int = 7, slot_size: int = 5, gain: float = 1.5, **options: Any) -> NTM:
    """A small model whose weights are large enough for every part of it to matter."""
    options.setdefault("controller", CONTROLLERS["lstm-1"])
    return _shaken(NTM(4, 3, num_slots, slot_size, **options), gain)


def make_dnc(num_slots: int = 7, slot_size: int = 5, num_read_heads: int = 1, gain: float = 1.5, **options: Any) -> DNC:
    """The same of the Differentiable Neural Computer."""
    options.setdefault("controller", CONTROLLERS["lstm-1"])
    return _shaken(DNC(4, 3, num_slots, slot_size, num_read_heads, **options), gain)


def make_sam(
    num_slots: int = 7,
    slot_size: int = 5,
    num_read_heads: int = 1,
    num_reads: int = 3,
    gain: float = 1.5,
    **options: Any,
) -> SAM:
    """The same of sparse access memory, whose read heads are its write heads as well."""
    options.setdefault("controller", CONTROLLERS["lstm-1"])
    return _shaken(SAM(4, 3, num_slots, slot_size, num_read_heads, min(num_reads, num_slots), **options), gain)


def _shaken(model: Any, gain: float) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain).add_(0.1 * torch.randn(parameter.shape))
    return model


def tensors_of(state: Any) -> list[Tensor]:
    """A state's tensors, in the order in which its kernel has them."""
    return dnc_cell.state_tensors(state) or ntm_cell.state_tensors(state) or sam_cell.state_tensors(state)


def state_of(model: Model, tensors: list[Tensor]) -> Any:
    """The state whose ``tensors_of`` these are."""
    if isinstance(model, NTM):
        return ntm_cell.state_of(tensors)
    if isinstance(model, SAM):
        return sam_cell.state_of(tensors, sam_cell.sizes_of(model.cell).links)
    sizes = dnc_cell.sizes_of(model.cell)
    return dnc_cell.state_of(tensors, sizes.lstm, sizes.erase_freed)


def states(model: Model, batch: int) -> list[Tensor]:
    """A state that differs from item to item; weights are positive and sum to 1."""
    with torch.no_grad():
        start = tensors_of(model.cell.init_state(batch))
    drawn = [x + 0.3 * _normal(x) if x.is_floating_point() else x for x in start]
    if isinstance(model, SAM):
        return tensors_of(_in_use(state_of(model, drawn)))
    if isinstance(model, NTM):
        for weights in (-3, -2):
            drawn[weights] = _normal(drawn[weights]).softmax(-1)
        return drawn
    write, read = state_of(model, drawn).access[1:]
    for tensor in (write.read_weights, *read[1:-1]):
        tensor.copy_(_normal(tensor).softmax(-1))
    # No two slots are used alike: where they are, rounding would say which comes first.
    for tensor in (write.usage, *([] if write.retention is None else [write.retention])):
        tensor.copy_(_normal(tensor).sigmoid())
    slots = read.link.shape[-1]
    read.link.copy_(_normal(read.link).sigmoid() / slots * (1 - torch.eye(slots)))
    return drawn


def _in_use(state: Any) -> Any:
    """A sparse state with all slots in use, half of them, or as few as can be, in turn; some accessed at once."""
    links = isinstance(state.access, LinkedState)
    memory, slots, weights, least_used, last_access, in_use, _ = sam_cell.without_links(state.access)
    heads, near, size = least_used.shape[1], slots.shape[2], memory.shape[1]
    slots, least_used, last_access, in_use = (x.clone() for x in (slots, least_used, last_access, in_use))
    for item in range(len(memory)):
        used = in_use[item] = max(heads, (size, size // 2, 1)[item % 3])
        memory[item, used:] = 0
        last_access[item, :used] = torch.randint(1, 4, (int(used),))
        least_used[item] = torch.randperm(int(used))[:heads]
        last_access[item, least_used[item, 0]] = 0  # chosen, but hardly written
        weights[item] = 0
        for head in range(heads):
            read = torch.randperm(int(used))[:near]
            slots[item, head, : len(read)] = read
            weights[item, head, : len(read)] = _normal(weights[item, head, : len(read)]).softmax(-1)
    sparse = SparseState(memory, slots, weights, least_used, last_access, in_use, torch.full_like(in_use, 4))
    return state._replace(access=LinkedState(sparse, *_some_links(sparse)) if links else sparse)


def _some_links(sparse: SparseState) -> tuple[Tensor, Tensor]:
    """One chain through most of the slots in use, broken here and there, that no head has ended with."""
    after, before = torch.zeros_like(sparse.last_access), torch.zeros_like(sparse.last_access)
    for item, used in enumerate(sparse.in_use.tolist()):
        order = [slot for slot in torch.randperm(used).tolist() if slot not in sparse.least_used[item].tolist()]
        for place, (first, second) in enumerate(pairwise(order)):
            if place % 3 != 2:
                after[item, first], before[item, second] = second + 1, first + 1
    return after, before


def _normal(like: Tensor) -> Tensor:
    return torch.randn(like.shape, dtype=torch.float64).to(like)


def weigh(tensors: list[Tensor]) -> Tensor:
    """One number that depends on every element of all tensors, differently."""
    draw = torch.Generator().manual_seed(1)
    return sum((x * torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x)).sum() for x in tensors)


def results(
    model: Model,
    inputs: Tensor,
    start: list[Tensor],
    lengths: Tensor | None = None,
    loss_of: Callable[[list[Tensor]], Tensor] = weigh,
) -> Results:
    """Runs a model and differentiates by the inputs, the state and all of the cell's parameters."""
    inputs = inputs.detach().clone().requires_grad_()
    start = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in start]
    parameters = {name: x for name, x in model.named_parameters() if "initial" not in name and "start" not in name}
    outputs, state = unroll(model.cell, inputs, state_of(model, start), lengths)
    end = comparable(state)
    loss = loss_of([outputs, *end])
    states = {f"state {i}": x for i, x in enumerate(start) if x.requires_grad}
    sources = {"inputs": inputs, **states, **parameters}
    gradients = torch.autograd.grad(loss, list(sources.values()), allow_unused=True, materialize_grads=True)
    forward = {"outputs": outputs, **{f"end {i}": x for i, x in enumerate(end)}}
    return Results({k: v.detach() for k, v in forward.items()}, dict(zip(sources, gradients, strict=True)))


def comparable(state: Any) -> list[Tensor]:
    """A state's tensors; in those of a sparse one it does not matter in which order a head's slots are listed."""
    access, links = state.access, isinstance(state.access, LinkedState)
    if not isinstance(access, SparseState | LinkedState):
        return tensors_of(state)
    sparse = sam_cell.without_links(access)
    slots, weights = sparse.read_slots, sparse.read_weights
    dense = weights.new_zeros(*slots.shape[:2], sparse.memory.shape[1]).scatter_add(2, slots, weights)
    read = torch.zeros_like(dense).scatter(2, slots, 1.0)
    sparse = sparse._replace(read_slots=read, read_weights=dense)
    return tensors_of(state._replace(access=access._replace(sparse=sparse) if links else sparse))


def assert_right(
    model: Model,
    inputs: Tensor,
    start: list[Tensor],
    lengths: Tensor | None = None,
    loss_of: Callable[[list[Tensor]], Tensor] = weigh,
) -> None:
    """The kernel's numbers are those of the plain loop in double precision."""
    assert kernels.find(model.cell, inputs, state_of(model, start)) is not None
    got = results(model, inputs, start, lengths, loss_of)
    with kernels.disabled():
        plain = results(model, inputs, start, lengths, loss_of)
        double = copy.deepcopy(model).double()
        right = results(double, inputs.double(), [_double(x) for x in start], lengths, loss_of)
    for ours, theirs, truth in zip(got, plain, right, strict=True):
        for name, x in truth.items():
            assert ours[name].shape == x.shape, name
            assert torch.isfinite(ours[name]).all(), f"{name} is not finite"
            error, plain_error = ((y[name].double() - x).abs().max() for y in (ours, theirs))
            allowed = TOLERANCE * x.abs().max() + ROUNDING * plain_error + 1e-6
            assert error <= allowed, f"{name} is off by {error:.1e}, the plain loop by {plain_error:.1e}"


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def assert_same(got: Results, expected: Results) -> None:
    """To the last bit."""
    for part, others in zip(got, expected, strict=True):
        for name, other in others.items():
            assert torch.equal(part[name], other), name


def compare(model: Model, batch: int = 3, time: int = 5, lengths: Tensor | None = None, scale: float = 1.0) -> None:
    """The kernel and the plain loop in double precision give the same numbers for random inputs and state."""
    assert_right(model, scale * torch.randn(batch, time, 4), states(model, batch), lengths)


def find(model: Model, batch: int = 2, dtype: torch.dtype = torch.float32) -> Any:
    """The kernel that the model takes, or None."""
    return kernels.find(model.cell, torch.randn(batch, 3, 4, dtype=dtype), model.cell.init_state(batch))


def subclass(path: str) -> Callable[[Model], None]:
    """Makes a module's class another one, which may have other equations."""

    def change(model: Model) -> None:
        module = model.get_submodule(path)
        module.__class__ = type("Other", (type(module),), {})

    return change


def read_addressing(addressing: Callable[[], Any]) -> Callable[[Model], None]:
    """Has the read heads find slots in another way."""

    def change(model: Model) -> None:
        model.cell.access.read_addressing = addressing()

    return change


def outputs_of_nan(model: Model, inputs: Tensor, start: list[Tensor]) -> Tensor:
    """The kernel's outputs, once it is sure that NaN is where the plain loop has it, and in the same gradients."""
    got = results(model, inputs, start)
    with kernels.disabled():
        expected = results(model, inputs, start)
    for name, other in expected.forward.items():
        assert torch.equal(got.forward[name].isnan(), other.isnan()), name
    for name, other in expected.gradients.items():
        assert got.gradients[name].isnan().any() == other.isnan().any(), name
    return got.forward["outputs"]


def learning_curve(make_anew: Callable[[], Model]) -> Tensor:
    """The losses while a model of 4 bits learns to repeat each vector one step later."""
    torch.manual_seed(1)
    model = make_anew()
    optimizer = torch.optim.Adam(model.parameters(), 4e-2)
    curve = []
    for _ in range(40):
        bits = torch.rand(4, 6, 4).round()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(bits)[0][:, 1:], bits[:, :-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.detach())
    return torch.stack(curve)
