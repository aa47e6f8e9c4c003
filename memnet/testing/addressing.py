"""Does an addressing scheme keep what ``memnet.Addressing`` promises?"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from memnet.addressing.base import Addressing
from memnet.functional import per_head
from memnet.testing.promises import (
    SCALES,
    class_name,
    gradients,
    project,
    require,
    require_close,
    require_finite,
    require_state,
    require_unchanged,
    require_used,
    shape_and_dtype,
    snapshot,
    take,
    tensors,
)

SUM_TOLERANCE = 1e-5
"""For sums of weights in float32: hundreds of roundings of 6e-8 each, far below any weight that is missing."""

BATCH = 3

Role = Literal["read", "write"]


class _Steps(NamedTuple):
    """What a scheme is given over time."""

    emission: Tensor  # (time, batch, head, emit)
    shared: Tensor  # (time, batch, shared)
    keys: Tensor  # (time, batch, slot, key)
    others: Tensor  # (time, batch, head, slot): weights of the heads on the other side


class _Suite(NamedTuple):
    """One call of ``check_addressing``: what to make and the sizes to try."""

    make: Callable[[int], Addressing]
    key_size: int
    num_slots: Sequence[int]
    num_heads: Sequence[int]
    num_other_heads: int
    roles: Sequence[Role]
    stochastic: bool

    def steps(
        self,
        scheme: Addressing,
        slots: int | None = None,
        heads: int | None = None,
        time: int = 2,
        dtype: torch.dtype = torch.float32,
    ) -> _Steps:
        slots = self.num_slots[-1] if slots is None else slots
        heads = self.num_heads[-1] if heads is None else heads
        draw = torch.Generator().manual_seed(slots)

        def normal(*shape: int) -> Tensor:
            return torch.randn(time, BATCH, *shape, generator=draw, dtype=torch.float64).to(dtype)

        return _Steps(
            normal(heads, scheme.emit_size),
            normal(scheme.shared_emit_size),
            normal(slots, self.key_size),
            normal(self.num_other_heads, slots).softmax(-1),
        )

    def single(self) -> Addressing:
        return self.make(self.key_size).float()

    def double(self) -> Addressing:
        """Where results are compared: float64 leaves no rounding to be tolerant of."""
        return self.make(self.key_size).double()

    def run(
        self, scheme: Addressing, steps: _Steps, role: Role, mask: Tensor | None = None, state: Any = None
    ) -> tuple[list[Tensor], Any]:
        """Steps through a memory's calls in their order, with ``scheme`` on one side of it."""
        if self.stochastic:
            torch.manual_seed(0)
        state = scheme.init_state(steps.keys[0], steps.emission.shape[2]) if state is None else state
        trace = []
        for emission, shared, keys, others in zip(*steps, strict=True):
            state = scheme.before_step(shared, state)
            if role == "read":
                state = scheme.after_write(others, state)
            weights, state = scheme(emission, keys, state, mask)
            state = scheme.after_write(weights, state) if role == "write" else state
            state = scheme.after_read(weights if role == "read" else others, state)
            trace.append(weights)
        return trace, state


def check_addressing(
    make: Callable[[int], Addressing],
    *,
    key_size: int = 5,
    num_slots: Sequence[int] = (1, 2, 3, 7),
    num_heads: Sequence[int] = (1, 3),
    num_other_heads: int = 2,
    roles: Sequence[Role] = ("read", "write"),
    differentiable: bool = True,
    stochastic: bool = False,
) -> None:
    """Checks an addressing scheme against everything that ``memnet.Addressing`` says.

    Args:
        make: returns a fresh scheme for keys of the given width, e.g. the class itself.
        key_size: width of the keys to try.
        num_slots: memory sizes to try, the largest last; fewer for a scheme that is made for one size.
        num_heads: numbers of heads to try; fewer for a scheme that is made for one number.
        num_other_heads: how many heads the other side of the memory has, whose weights the scheme receives.
        roles: on which side the scheme is used: by heads that "read", that "write", or both.
        differentiable: compare gradients with finite differences. False for a scheme whose gradient is not that of its
            output on purpose, as with a straight-through estimator.
        stochastic: the scheme draws random numbers; the same seed must still give the same weights, while items of a
            batch are not compared with one another.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    suite = _Suite(make, key_size, num_slots, num_heads, num_other_heads, roles, stochastic)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _check_sizes(suite)
        for role in roles:
            _check_weights(suite, role)
            _check_explicit_state(suite, role)
            if not stochastic:
                _check_items_independent(suite, role)
                _check_steps_at_once(suite)
            _check_masks(suite, role)
            _check_scales(suite, role)
            _check_long_run(suite, role)
            _check_parameters(suite, role)
            _check_autocast(suite, role)
            if differentiable and not stochastic:
                _check_gradients(suite, role)


def _check_sizes(suite: _Suite) -> None:
    scheme = suite.make(suite.key_size)
    require(isinstance(scheme, Addressing), scheme, "it must be a memnet.Addressing.")
    for name in ("emit_size", "shared_emit_size"):
        size = getattr(scheme, name)
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        require(whole, scheme, f"{name} must be a whole number of at least 0, and is {size!r}.")
    start = scheme.emission_start
    finite = isinstance(start, tuple) and len(start) == scheme.emit_size and all(map(math.isfinite, start))
    require(finite, scheme, f"emission_start must be {scheme.emit_size} finite numbers, and is {start!r}.")


def _check_weights(suite: _Suite, role: Role) -> None:
    for slots in suite.num_slots:
        for heads in suite.num_heads:
            scheme = suite.single()
            steps = suite.steps(scheme, slots, heads)
            start = scheme.init_state(steps.keys[0], heads)
            require_state(scheme, start, BATCH)
            trace, end = suite.run(scheme, steps, role, state=start)
            for weights in trace:
                _require_weights(scheme, weights, (BATCH, heads, slots))
            require_state(scheme, end, BATCH)
            same = [shape_and_dtype(x) for x in tree_leaves(start)] == [shape_and_dtype(x) for x in tree_leaves(end)]
            require(same, scheme, "the state must keep its shapes and dtypes from step to step.")


def _check_explicit_state(suite: _Suite, role: Role) -> None:
    scheme = suite.double()
    steps = suite.steps(scheme, dtype=torch.float64)
    state = scheme.init_state(steps.keys[0], steps.emission.shape[2])
    given = [x.clone() for x in (*steps, *tensors(state))]
    before = snapshot(scheme)
    first = suite.run(scheme, steps, role, state=state)
    require_unchanged(scheme, before)
    same = all(torch.equal(x, y) for x, y in zip(given, (*steps, *tensors(state)), strict=True))
    require(same, scheme, "inputs and the given state must not be changed in place.")
    second = suite.run(scheme, steps, role, state=state)
    require_close(second, first, scheme, "the same inputs and state must give the same weights and state again.")


def _check_items_independent(suite: _Suite, role: Role) -> None:
    scheme = suite.double()
    steps = suite.steps(scheme, dtype=torch.float64)
    trace, end = suite.run(scheme, steps, role)
    for items in ([2, 0, 1], [0], [1], [2]):
        some, some_end = suite.run(scheme, _Steps(*(x[:, items] for x in steps)), role)
        expected = [x[items] for x in trace], take(end, items)
        require_close((some, some_end), expected, scheme, "the items of a batch must not depend on one another.")
    steps = _leaves(steps)
    trace, end = suite.run(scheme, steps, role)
    loss = project([x[:1] for x in (*trace, *tensors(end))])
    for gradient in gradients(loss, steps):
        require(not gradient[:, 1:].any(), scheme, "gradients must not cross from one item of a batch to another.")


def _check_steps_at_once(suite: _Suite) -> None:
    scheme = suite.double()
    if not scheme.steps_at_once:
        return
    steps = suite.steps(scheme, time=3, dtype=torch.float64)
    keys, state = steps.keys[0], scheme.init_state(steps.keys[0], steps.emission.shape[2])
    at_once, _ = scheme(rearrange(steps.emission, "time batch head emit -> batch (time head) emit"), keys, state)
    trace = []
    for emission in steps.emission:
        weights, state = scheme(emission, keys, state)
        trace.append(weights)
    sentence = "steps_at_once is True, so steps in one call must give what they give one by one."
    require_close(at_once, torch.cat(trace, 1), scheme, sentence)


def _check_masks(suite: _Suite, role: Role) -> None:
    for slots in suite.num_slots:
        scheme = suite.double()
        steps = suite.steps(scheme, slots, dtype=torch.float64)
        mask = _mask(slots)
        trace, _ = suite.run(scheme, steps, role, mask)
        for weights in trace:
            _require_weights(scheme, weights, tuple(weights.shape), mask)
        start = scheme.init_state(steps.keys[0], steps.emission.shape[2])
        other_keys = torch.where(mask[:, :, None], steps.keys, 3 - steps.keys)
        first, _ = suite.run(scheme, steps, role, mask, start)
        second, _ = suite.run(scheme, steps._replace(keys=other_keys), role, mask, start)
        require_close(second, first, scheme, "what a masked slot holds must not change the weights.")
        heads = steps.emission.shape[2]
        same, _ = suite.run(scheme, steps, role, mask[:, None].expand(-1, heads, -1), start)
        require_close(same, first, scheme, "one mask for all heads must give what the same mask for each head gives.")
        own = torch.stack([mask.roll(head, 0) for head in range(heads)], 1)
        trace, _ = suite.run(scheme, steps, role, own, start)
        for weights in trace:
            _require_weights(scheme, weights, tuple(weights.shape), own, "when each head has its own mask")


def _check_scales(suite: _Suite, role: Role) -> None:
    scheme = suite.single()
    pairs = {pair: None for scale in SCALES for pair in [(scale, 1.0), (1.0, scale), (scale, scale)]}
    # The mask leaves one sequence all its slots, so that it need not be absent for every size.
    for slots, mask in [(suite.num_slots[-1], None), *((slots, _mask(slots)) for slots in suite.num_slots)]:
        for emission_scale, keys_scale in pairs:
            where = f"for emissions x {emission_scale:g}, keys x {keys_scale:g} and {slots} slots"
            steps = suite.steps(scheme, slots)
            emission, shared = emission_scale * steps.emission, emission_scale * steps.shared
            steps = _leaves(steps._replace(emission=emission, shared=shared, keys=keys_scale * steps.keys))
            state = _leaves(scheme.init_state(steps.keys[0].detach(), emission.shape[2]))
            trace, end = suite.run(scheme, steps, role, mask, state)
            for weights in trace:
                _require_weights(scheme, weights, tuple(weights.shape), mask, where)
            sources = [*steps, *tree_leaves(state), *scheme.parameters()]
            for gradient in gradients(project([*trace, *tree_leaves(end)]), sources):
                require_finite(gradient, scheme, f"gradients must be finite {where}.")


def _check_long_run(suite: _Suite, role: Role) -> None:
    scheme = suite.single()
    steps = _leaves(suite.steps(scheme, time=50))
    trace, end = suite.run(scheme, steps, role)
    for step, weights in enumerate(trace):
        _require_weights(scheme, weights, tuple(weights.shape), where=f"at step {step + 1} of 50")
    for x in tree_leaves(end):
        require_finite(x, scheme, "the state must be finite after 50 steps.")
    for gradient in gradients(project([*trace, *tree_leaves(end)]), [*steps, *scheme.parameters()]):
        require_finite(gradient, scheme, "gradients must be finite through 50 steps.")


def _check_parameters(suite: _Suite, role: Role) -> None:
    scheme = suite.double()
    steps = suite.steps(scheme, dtype=torch.float64)
    trace, end = suite.run(scheme, steps, role)
    if suite.num_slots[-1] > 1 or not scheme.normalized:  # weights over a single slot are 1 whatever is asked for
        require_used(scheme, project([*trace, *tree_leaves(end)]))
    other = suite.double()
    other.load_state_dict(scheme.state_dict())
    again, _ = suite.run(other, steps, role)
    require_close(again, trace, scheme, "a scheme that loads its state_dict must give the same weights.")


def _check_autocast(suite: _Suite, role: Role) -> None:
    scheme = suite.single()
    for dtype in (torch.float32, torch.bfloat16):
        steps = suite.steps(scheme)
        steps = steps._replace(emission=steps.emission.to(dtype))
        with torch.autocast("cpu", torch.bfloat16):
            trace, end = suite.run(scheme, steps, role)
        for x in (*trace, *tensors(end)):
            narrow = x.dtype in (torch.bfloat16, torch.float16)
            require(not narrow, scheme, "weights and state must stay in float32 under autocast.")
        for weights in trace:
            _require_weights(scheme, weights, tuple(weights.shape), where=f"under autocast, {dtype} emissions")


def _check_gradients(suite: _Suite, role: Role) -> None:
    scheme = suite.double()
    # Few slots: where weights come near 0 their logarithm bends within a finite difference.
    slots = 3 if 3 in suite.num_slots else suite.num_slots[0]
    steps = suite.steps(scheme, slots, dtype=torch.float64)
    given = {name: x.requires_grad_() for name, x in steps._asdict().items() if x.numel()}

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        trace, end = suite.run(scheme, steps._replace(**dict(zip(given, values, strict=True))), role)
        return *trace, *(x for x in tensors(end) if x.is_floating_point())

    try:
        torch.autograd.gradcheck(run, tuple(given.values()), fast_mode=True)
    except RuntimeError as error:  # what gradcheck raises on a mismatch
        raise AssertionError(f"{class_name(scheme)}: gradients must agree with finite differences. {error}") from error


def _mask(slots: int) -> Tensor:
    """For three sequences: every slot, some slots, none."""
    some = torch.arange(slots) % 3 == 1 if slots > 1 else torch.ones(1, dtype=torch.bool)
    return torch.stack([torch.ones(slots, dtype=torch.bool), some, torch.zeros(slots, dtype=torch.bool)])


def _leaves(tree: Any) -> Any:
    """The same tensors as leaves to differentiate by."""
    return tree_map(
        lambda x: x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x, tree
    )


def _require_weights(
    scheme: Addressing, weights: Tensor, shape: tuple[int, ...], mask: Tensor | None = None, where: str = ""
) -> None:
    where = f" {where}" if where else ""
    form = f"weights must be (batch, head, slot) = {shape}, and are {tuple(weights.shape)}."
    require(tuple(weights.shape) == shape, scheme, form)
    require_finite(weights, scheme, f"weights must be finite{where}.")
    require(bool((weights >= 0).all()), scheme, f"weights must be at least 0{where}.")
    require(bool((weights <= 1 + SUM_TOLERANCE).all()), scheme, f"weights must be at most 1{where}.")
    real = torch.ones_like(weights, dtype=torch.bool) if mask is None else per_head(mask).expand_as(weights)
    require(not weights[~real].any(), scheme, f"masked slots must have weight 0{where}.")
    if scheme.normalized:
        missing = (weights.sum(-1) - real.any(-1).to(weights.dtype)).abs().max()
        require(bool(missing < SUM_TOLERANCE), scheme, f"weights must sum to 1 over the slots that are left{where}.")
