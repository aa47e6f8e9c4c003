"""Sparse access memory: the paper's equations, and a backward pass that undoes what forward wrote."""

import itertools
import weakref
from functools import partial

import numpy as np
import pytest
import torch

from memnet import SAM, FeedForwardController, LSTMController, sparse_usage, unroll
from memnet.functional import NORM_EPS
from memnet.functional_sparse import least_recently_used
from memnet.sparse_access import SparseAccess
from memnet.sparse_usage import AccessOrder
from tests.reference import sam as reference

THRESHOLD = 0.005


def controls(time, batch=2, size=6):
    return 2 * torch.randn(time, batch, size, dtype=torch.float64)


def model(**settings):
    small = {"num_slots": 6, "slot_size": 4, "num_reads": 3, "controller": partial(LSTMController, hidden_size=5)}
    return SAM(3, 2, **{**small, **settings}).double()


@pytest.mark.parametrize(
    ("num_slots", "num_heads", "num_reads", "time"),
    [
        (12, 1, 3, 10),  # some slots stay free
        (5, 1, 2, 14),  # all are in use, and the least recently used is overwritten
        (5, 2, 3, 14),
        (4, 1, 4, 12),  # K = N: every slot in use is read, and the equations are the dense ones
        (4, 3, 4, 12),
        (3, 3, 1, 8),  # as many heads as slots
        (1, 1, 1, 4),
    ],
)
def test_it_computes_the_paper_s_equations(num_slots, num_heads, num_reads, time):
    access = SparseAccess(6, num_slots, 4, num_heads, num_reads, THRESHOLD).double()
    # The gates near 0 and 1 too, so that some accesses stay below the threshold.
    access.interface.weight.data *= 3
    sequence = controls(time)
    opened = access.open(access.init_state(2))
    got = [access(control, opened)[0] for control in sequence]
    end = opened.close()
    below = 0
    for item in range(2):
        state = reference.start(num_slots, 4, num_heads)
        for control, reads in zip(sequence, got, strict=True):
            emitted = access.interface(control[item]).detach().numpy().reshape(num_heads, -1)
            before = state
            expected, state = reference.step(emitted, before, num_reads, THRESHOLD, NORM_EPS)
            np.testing.assert_allclose(reads[item].detach().numpy(), expected, rtol=1e-9, atol=1e-12)
            below += before[3] < state[3] and 0 in state[2][: state[3]]
        memory, weights, last_access, in_use, now = state
        np.testing.assert_allclose(end.memory[item].detach().numpy(), memory, rtol=1e-9, atol=1e-12)
        dense = torch.zeros(num_heads, num_slots, dtype=torch.float64)
        dense.scatter_add_(1, end.read_slots[item], end.read_weights[item].detach())
        np.testing.assert_allclose(dense.numpy(), weights, rtol=1e-9, atol=1e-12)
        assert end.last_access[item].tolist() == last_access
        assert (int(end.in_use[item]), int(end.time[item])) == (max(in_use, num_heads), now)
    if (num_slots, num_heads) == (12, 1):
        assert below > 0, "no write was too weak to count, so that the threshold was not tried"


def test_slots_enter_use_in_order_though_some_are_never_accessed():
    """The short cut and the search over all slots must choose the same."""
    access = SparseAccess(6, 40, 4, num_heads=3, num_reads=2, access_threshold=0.3).double()
    access.interface.weight.data *= 4
    opened = access.open(access.init_state(2))
    for control in controls(12):
        state = opened._state
        short = least_recently_used(state.last_access, state.least_used, state.in_use)
        # As if no slot were free.
        full = least_recently_used(state.last_access, state.least_used, torch.full_like(state.in_use, 40))
        assert torch.equal(short, full)
        access(control, opened)
    never = (opened._state.last_access == 0) & (torch.arange(40) < opened._state.in_use[:, None])
    assert never.any()


@pytest.mark.parametrize(("num_slots", "num_heads"), [(200, 1), (200, 3), (9, 2), (3, 3), (1, 1)])
def test_the_order_of_last_accesses_is_that_of_a_search_over_all_slots(num_slots, num_heads, monkeypatch):
    monkeypatch.setattr(sparse_usage, "FIRST_LOOK", 2)
    order, full = AccessOrder(), torch.full((2,), num_slots)
    last_access = torch.randint(5, (2, num_slots))  # equal times among them
    chosen = torch.zeros(2, num_heads, dtype=torch.int64)
    sorted_anew = 0
    for time in range(6, 300):
        before = order._order
        chosen = order.least_recently_used(last_access, chosen, full)
        sorted_anew += order._order is not before
        assert torch.equal(chosen, least_recently_used(last_access, chosen, full))
        touched = torch.cat([torch.randint(num_slots, (2, 4)), chosen[:, : time % (num_heads + 1)]], 1)
        last_access.scatter_(1, touched, time)
    assert sorted_anew > 1 and (num_slots < 200 or sorted_anew < 100)


def test_undoing_restores_the_memory_to_the_bit():
    access = SparseAccess(6, 5, 4, num_heads=2, num_reads=3)
    with torch.no_grad():
        state = access.init_state(2)
        for control in controls(3).float():
            _, state = access(control, state)
    opened = access.open(state)
    copies = [opened.memory.clone()]
    for control in controls(15).float():
        access(control, opened)
        copies.append(opened.memory.clone())
    assert not any(torch.equal(first, second) for first, second in itertools.pairwise(copies))
    for position in (15, 0, 15, 7, 8, 3, 14, 0):
        opened.seek(position)
        assert torch.equal(opened.memory, copies[position])


def test_backward_undoes_the_writes_and_leaves_states_alone():
    access = SparseAccess(6, 5, 4, num_reads=3)
    start = access.init_state(2)
    opened = access.open(start)
    reads = [access(control, opened)[0] for control in controls(9).float()]
    end = opened.close()
    kept = end.memory.clone()
    assert opened.position == 9 and torch.equal(opened.memory, kept)
    torch.stack(reads).sum().backward()
    assert opened.position == 1  # the memory that the first step has read
    assert torch.equal(end.memory, kept)
    assert not start.memory.any() and not start.last_access.any()
    opened.seek(0)
    assert not opened.memory.any()


@pytest.mark.parametrize("num_heads", [1, 2])
def test_gradients_agree_with_finite_differences(num_heads):
    network = model(num_heads=num_heads, num_slots=4)
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([6, 4])

    def run(inputs, *parameters):
        outputs, state = network(inputs, lengths=lengths)
        return outputs, state.access.memory, state.access.read_weights

    torch.autograd.gradcheck(run, (inputs, *network.parameters()), fast_mode=True)


@pytest.mark.parametrize("num_heads", [1, 3])
def test_a_sequence_is_its_steps_one_by_one(num_heads):
    """The shared memory against the plain loop, which copies it at every step; with padding."""
    network = model(num_heads=num_heads, num_reads=2)
    inputs = torch.randn(3, 11, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([11, 4, 7])
    sources = [inputs, *network.parameters()]
    results = []
    for run in (network, partial(unroll, network.cell)):
        outputs, state = run(inputs, lengths=lengths)
        loss = outputs.square().sum() + state.access.memory.square().sum() + state.reads.sum()
        results.append((outputs, *state.access, *torch.autograd.grad(loss, sources)))
    for shared, plain in zip(*results, strict=True):
        torch.testing.assert_close(shared, plain)


def test_chunks_are_the_whole():
    network = model()
    inputs = torch.randn(2, 10, 3, dtype=torch.float64, requires_grad=True)
    sources = [inputs, *network.parameters()]
    whole, whole_end = network(inputs)
    first, state = network(inputs[:, :4])
    given = [x.clone() for x in state.access]
    second, end = network(inputs[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end.access, whole_end.access)
    expected = torch.autograd.grad(whole.square().sum() + whole_end.access.memory.sum(), sources)
    loss = first.square().sum() + second.square().sum() + end.access.memory.sum()
    torch.testing.assert_close(torch.autograd.grad(loss, sources), expected)
    for now, before in zip(state.access, given, strict=True):
        assert torch.equal(now, before)


def test_a_graph_can_be_walked_twice_and_from_the_middle():
    network = model()
    inputs = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    outputs, _ = network(inputs)
    expected = []
    for step in (7, 2, 5):
        fresh, _ = network(inputs)
        expected.append(torch.autograd.grad(fresh[:, step].sum(), inputs)[0])
    for step, right in zip((7, 2, 5), expected, strict=True):
        (got,) = torch.autograd.grad(outputs[:, step].sum(), inputs, retain_graph=True)
        torch.testing.assert_close(got, right)
    assert all(gradient.abs().sum() > 0 for gradient in expected)


def saved_bytes(num_slots, time=12):
    """What forward keeps for backward, parameters and inputs apart, and the log of writes."""
    torch.manual_seed(0)
    access = SparseAccess(6, num_slots, 4, num_reads=3)
    sequence = controls(time).float()
    opened = access.open(access.init_state(2))
    own = {x.untyped_storage().data_ptr() for x in (*access.parameters(), sequence)}
    kept = {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        reads = [access(control, opened)[0] for control in sequence]
    assert reads[-1].requires_grad
    return sum(kept.values()) + opened.log_bytes()


def test_what_a_step_keeps_does_not_grow_with_the_slots():
    per_step = (saved_bytes(8192, 24) - saved_bytes(8192, 12)) / 12
    assert saved_bytes(8192) == saved_bytes(64)
    assert 0 < per_step < 8192 * 4  # not even one number for each slot, let alone for each number of the memory
    fewer = (saved_bytes(8192, 12) - saved_bytes(8192, 6)) / 6
    assert per_step == fewer  # nor with the steps before


def test_a_graph_is_freed_without_the_garbage_collector():
    access = SparseAccess(6, 8, 4)
    opened = access.open(access.init_state(2))
    reads = [access(control, opened)[0] for control in controls(3).float()]
    end = opened.close()
    there = weakref.ref(opened)
    del opened
    assert there() is not None  # the graph holds it
    del reads, end
    assert there() is None


def test_without_gradients_nothing_is_logged():
    access = SparseAccess(6, 8, 4)
    with torch.no_grad():
        opened = access.open(access.init_state(2))
        for control in controls(3).float():
            access(control, opened)
    assert opened.log_bytes() == 0


def test_under_autocast_the_memory_stays_in_single_precision():
    network = SAM(3, 2, num_slots=6, slot_size=4, controller=partial(FeedForwardController, hidden_size=5))
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = network(torch.randn(2, 5, 3))
    assert state.access.memory.dtype == state.access.read_weights.dtype == torch.float32
    outputs.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_in_half_precision_it_runs():
    network = SAM(3, 2, num_slots=6, slot_size=4).bfloat16()
    outputs, _ = network(torch.randn(2, 9, 3).bfloat16())
    outputs.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_a_sequence_may_be_longer_than_the_memory():
    network = model(num_slots=3, num_reads=2)
    outputs, state = network(torch.randn(2, 40, 3, dtype=torch.float64))
    assert outputs.isfinite().all()
    assert state.access.in_use.tolist() == [3, 3] and state.access.time.tolist() == [40, 40]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_reads": 7}, "num_reads is 7, but must not be larger than num_slots, which is 6"),
        ({"num_heads": 7}, "num_heads is 7, but must not be larger than num_slots, which is 6"),
        ({"num_reads": 0}, "num_reads is 0"),
        ({"num_slots": 0}, "num_slots is 0"),
        ({"slot_size": 0}, "slot_size is 0"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"access_threshold": 1.0}, "access_threshold is 1.0, but must be at least 0 and less than 1"),
        ({"access_threshold": -0.1}, "access_threshold is -0.1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        model(**settings)


@pytest.mark.usefixtures("unchecked")
def test_bad_inputs():
    network = model()
    with pytest.raises(ValueError, match="inputs has shape"):
        network(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="lengths holds 9, but must lie between 1 and the inputs' 4"):
        network(torch.zeros(2, 4, 3, dtype=torch.float64), lengths=torch.tensor([4, 9]))
