"""Sparse access memory with links: the equations, the order of writing, and that it learns to follow it."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from memnet import SAM, LinkedSparseAccess, LSTMController, unroll
from memnet.functional import NORM_EPS, SHARPEN_EPS
from memnet.functional_sparse import link_slots
from tasks import Copy
from tests.reference import sam as plain_reference
from tests.reference import sam_links as reference

THRESHOLD, EPS = 0.005, (NORM_EPS, SHARPEN_EPS)


def model(**settings):
    small = {"num_slots": 6, "slot_size": 4, "num_reads": 3, "controller": partial(LSTMController, hidden_size=5)}
    return SAM(3, 2, links=True, **{**small, **settings}).double()


@pytest.mark.parametrize(
    ("num_slots", "num_heads", "num_reads", "time"),
    [(14, 1, 2, 12), (5, 1, 2, 14), (9, 2, 3, 14), (4, 1, 4, 12), (1, 1, 1, 4)],
)
def test_it_computes_the_equations(num_slots, num_heads, num_reads, time):
    access = LinkedSparseAccess(6, num_slots, 4, num_heads, num_reads, THRESHOLD).double()
    access.interface.weight.data *= 2
    sequence = 2 * torch.randn(time, 2, 6, dtype=torch.float64)
    opened = access.open(access.init_state(2))
    got = [access(control, opened)[0] for control in sequence]
    end = opened.close()
    followed = 0.0
    for item in range(2):
        state, chains = plain_reference.start(num_slots, 4, num_heads), [[] for _ in range(num_heads)]
        for control, reads in zip(sequence, got, strict=True):
            emitted = access.interface(control[item]).detach().numpy().reshape(num_heads, -1)
            expected, state, chains = reference.step(emitted, state, chains, num_reads, THRESHOLD, *EPS)
            np.testing.assert_allclose(reads[item].detach().numpy(), expected, rtol=1e-9, atol=1e-12)
        memory, weights, last_access, _, _ = state
        np.testing.assert_allclose(end.sparse.memory[item].detach().numpy(), memory, rtol=1e-9, atol=1e-12)
        dense = torch.zeros(num_heads, num_slots, dtype=torch.float64)
        dense.scatter_add_(1, end.sparse.read_slots[item], end.sparse.read_weights[item].detach())
        np.testing.assert_allclose(dense.numpy(), weights, rtol=1e-9, atol=1e-12)
        assert end.sparse.last_access[item].tolist() == last_access
        linked = {(a, b - 1) for a, b in enumerate(end.after[item].tolist()) if b}
        assert linked == {pair for chain in chains for pair in reference.pairs(chain)}
        followed += len(linked)
    assert followed > 0 or num_slots == 1, "no slot was linked, so that nothing was tried"


def test_links_both_ways_stay_one_another_s_inverse():
    num_slots, heads = 7, 3
    after, before = torch.zeros(2, num_slots, dtype=torch.int64), torch.zeros(2, num_slots, dtype=torch.int64)
    last, seen = torch.arange(heads).expand(2, heads), 0
    for _ in range(300):
        chosen = torch.stack([torch.randperm(num_slots)[:heads] for _ in range(2)])
        link_slots(after, before, last, chosen)
        last = chosen
        for item in range(2):
            forth = {(a, b - 1) for a, b in enumerate(after[item].tolist()) if b}
            back = {(a - 1, b) for b, a in enumerate(before[item].tolist()) if a}
            assert forth == back
            seen += len(forth)
    assert seen


def test_what_is_read_in_the_order_of_writing():
    """Three rows are written; the second is found by content, and what came after and before it by links."""
    rows = torch.eye(4)[:3]
    access = LinkedSparseAccess(1, 8, 4, num_reads=2)
    big = 50.0

    def emit(query, add, write, modes):
        head = [*(3 * query), *(big * add), big, big if write else -big, -big, *modes, big]
        access.interface.weight.data.zero_()
        access.interface.bias.data = torch.tensor([float(x) for x in head])
        return access(torch.zeros(1, 1), opened)[0][0, 0]

    backward, by_content, forward = (big * row for row in torch.eye(3))
    with torch.no_grad():
        opened = access.open(access.init_state(1))
        for row in rows:
            emit(torch.zeros(4), row, write=True, modes=by_content)
        nothing = torch.zeros(4)
        for modes, expected in [(by_content, 1), (forward, 2), (backward, 1), (backward, 0), (forward, 1)]:
            read = emit(rows[1], nothing, write=False, modes=modes)
            torch.testing.assert_close(read, rows[expected], atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_gradients_agree_with_finite_differences(num_heads):
    network = model(num_heads=num_heads, num_slots=5, num_reads=2)
    network.cell.access.interface.weight.data *= 2
    inputs = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([7, 4])

    def run(inputs, *parameters):
        outputs, state = network(inputs, lengths=lengths)
        return outputs, state.access.sparse.memory, state.access.sparse.read_weights

    torch.autograd.gradcheck(run, (inputs, *network.parameters()), fast_mode=True)


def test_a_sequence_is_its_steps_one_by_one():
    network = model(num_heads=2, num_reads=2)
    inputs = torch.randn(3, 11, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([11, 4, 7])
    sources = [inputs, *network.parameters()]
    results = []
    for run in (network, partial(unroll, network.cell)):
        outputs, state = run(inputs, lengths=lengths)
        loss = outputs.square().sum() + state.access.sparse.memory.square().sum() + state.reads.sum()
        access = [*state.access.sparse, state.access.after, state.access.before]
        results.append((outputs, *access, *torch.autograd.grad(loss, sources)))
    for shared, plain in zip(*results, strict=True):
        torch.testing.assert_close(shared, plain)


def test_chunks_are_the_whole_and_states_are_left_alone():
    network = model(num_slots=5)
    inputs = torch.randn(2, 10, 3, dtype=torch.float64)
    whole, whole_end = network(inputs)
    first, state = network(inputs[:, :4])
    given = [x.clone() for x in (*state.access.sparse, state.access.after, state.access.before)]
    second, end = network(inputs[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end.access, whole_end.access)
    for now, before in zip((*state.access.sparse, state.access.after, state.access.before), given, strict=True):
        assert torch.equal(now, before)


def test_more_steps_than_slots_and_half_precision():
    network = SAM(3, 2, num_slots=3, slot_size=4, num_reads=2, links=True).bfloat16()
    outputs, state = network(torch.randn(2, 40, 3).bfloat16())
    outputs.float().sum().backward()
    assert outputs.isfinite().all() and all(p.grad.isfinite().all() for p in network.parameters())
    assert int(state.access.after.max()) <= 3


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_copy_is_learned_and_goes_on_to_longer_sequences():
    torch.manual_seed(1)
    task = Copy(max_length=10, batch_size=16, test_lengths=[40], num_test=16)
    network = SAM(task.input_size, task.output_size, num_slots=128, links=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for batch in islice(task.train_dataloader(), 1500):
        optimizer.zero_grad()
        task.evaluate(network, batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimizer.step()
    with torch.no_grad():
        (batch,) = task.test_dataloader()
        assert task.evaluate(network, batch).metrics["bits"].mean() < 1
