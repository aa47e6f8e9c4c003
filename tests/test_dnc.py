"""The DNC: against the paper in loops, its state's invariants, its published fixes, and what it refuses."""

import itertools
import re
from functools import partial

import numpy as np
import pytest
import torch
from reference import dnc as slow
from torch.utils._pytree import tree_leaves

from memnet import (
    DNC,
    AllocationAddressing,
    ContentAddressing,
    CosineScore,
    FeedForwardController,
    LearnedMemory,
    LinkAddressing,
    LocationAddressing,
    LSTMController,
    MaskedCosineScore,
    MonotonicLocalAddressing,
    NormalizedController,
    ReadWriteAccess,
    record,
)
from memnet.cells import BypassedOutput
from memnet.functional import NORM_EPS, SHARPEN_EPS
from memnet.testing import check_addressing
from tasks import Copy

BATCH, TIME = 2, 6
SIZES = {
    "one head": slow.Sizes(6, 4, 1, 1),
    "several heads": slow.Sizes(5, 3, 3, 2),
    "content masking": slow.Sizes(5, 3, 2, 1, mask_content=True),
    "de-allocation": slow.Sizes(5, 3, 2, 1, erase_freed=True),
    "sharp links": slow.Sizes(5, 3, 2, 2, sharpen_links=True),
    "all fixes": slow.Sizes(4, 3, 2, 2, True, True, True),
}
READ, WRITE = "cell.access.read_addressing", "cell.access.write_addressing"


def content(size):
    return ContentAddressing(CosineScore(size))


def dnc(**settings):
    sizes = {"num_slots": 6, "slot_size": 4, "num_read_heads": 2, "num_write_heads": 1}
    return DNC(3, 2, **sizes | {"controller": partial(LSTMController, hidden_size=5)} | settings)


def shake(model):
    """So that no gate is half open and no start is 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.7 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("sizes", SIZES)
def test_dnc_is_the_papers(sizes):
    """Outputs, weights of all heads, memory, usage, links and precedence over several steps."""
    sizes = SIZES[sizes]
    start = LearnedMemory(sizes.num_slots, sizes.slot_size, std=1.0)
    model = shake(dnc(**sizes._asdict(), memory_start=start).double())
    parameters = {name: x.numpy() for name, x in model.state_dict().items()}
    inputs = torch.randn(BATCH, TIME, 3, dtype=torch.float64)
    with record(model) as trace:
        outputs, state = model(inputs)
    for item in range(BATCH):
        expected, weights, memory, usage, links, precedences = slow.run(
            parameters, inputs[item].numpy(), sizes, start.memory.detach().numpy(), NORM_EPS, SHARPEN_EPS
        )
        torch.testing.assert_close(outputs[item], torch.from_numpy(expected))
        torch.testing.assert_close(trace[READ][item], torch.from_numpy(weights["read"]))
        torch.testing.assert_close(trace[WRITE][item], torch.from_numpy(weights["write"]))
        write, read = state.access.write, state.access.read
        ends = [state.access.memory, write.usage, read.link, read.precedence]
        for ours, theirs in zip(ends, [memory, usage, links, precedences], strict=True):
            torch.testing.assert_close(ours[item], torch.from_numpy(theirs))


@pytest.mark.parametrize("settings", [{}, {"num_write_heads": 3}, {"erase_freed": True, "sharpen_links": True}])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_invariants_step_by_step(settings, scale):
    model = shake(dnc(**settings))
    with torch.no_grad():
        model.cell.access.interface.weight *= 5  # gates that are open or shut
    state = model.cell.init_state(BATCH)
    for x in (scale * torch.randn(40, BATCH, 3)).unbind():
        _, state = model.cell(x, state)
        read, write = state.access.read, state.access.write
        assert write.usage.min() >= 0 and write.usage.max() <= 1
        for sums in (read.link.sum(-1), read.link.sum(-2), read.precedence.sum(-1), read.read_weights.sum(-1)):
            assert (sums <= 1 + 1e-5).all()
        assert not read.link.diagonal(dim1=-2, dim2=-1).any()
        assert min(x.min() for x in (read.forward, read.backward, read.read_weights)) >= 0
        assert min(read.link.min(), read.precedence.min()) > -1e-6  # where write weights sum to just above 1


def emission(scheme, heads, gates):
    """Content as it comes, then the given numbers."""
    return torch.cat([torch.randn(BATCH, heads, scheme.inner.emit_size), gates.expand(BATCH, heads, -1)], -1)


@pytest.mark.parametrize(("write_gate", "allocation_gate"), [*itertools.product([-100.0, 0.0, 100.0], repeat=2)])
def test_write_gates(write_gate, allocation_gate):
    scheme = AllocationAddressing(content(4))
    keys = torch.randn(BATCH, 6, 4)
    state = scheme.init_state(keys, 1)._replace(usage=torch.rand(BATCH, 6))
    asked = emission(scheme, 1, torch.tensor([allocation_gate, write_gate]))
    weights, _ = scheme(asked, keys, state)
    by_content, _ = scheme.inner(asked[..., :-2], keys, None)
    allocated = torch.stack([torch.from_numpy(slow.allocation(u.numpy())).float() for u in state.usage])[:, None]
    opened, share = torch.tensor([write_gate, allocation_gate]).sigmoid()
    torch.testing.assert_close(weights, opened * (share * allocated + (1 - share) * by_content))


def test_several_write_heads_allocate_different_slots():
    """Wide open gates: as many empty slots as there are heads, the first of them first."""
    scheme = AllocationAddressing(content(4), num_read_heads=2)
    keys = torch.randn(BATCH, 6, 4)
    state = scheme.init_state(keys, 3)
    weights, _ = scheme(emission(scheme, 3, torch.tensor([100.0, 100.0])), keys, state)
    torch.testing.assert_close(weights, torch.eye(6)[:3].expand(BATCH, 3, 6))
    state = scheme.after_write(weights, state)
    torch.testing.assert_close(state.usage, torch.tensor([1.0, 1, 1, 0, 0, 0]).expand(BATCH, 6))
    mask = torch.tensor([False, True, True, False, True, True]).expand(BATCH, 6)
    weights, _ = scheme(emission(scheme, 3, torch.tensor([100.0, 100.0])), keys, scheme.init_state(keys, 3), mask)
    torch.testing.assert_close(weights, torch.eye(6)[[1, 2, 4]].expand(BATCH, 3, 6))


def test_free_gates_release_what_was_read():
    scheme = AllocationAddressing(content(4), num_read_heads=2)
    keys = torch.randn(BATCH, 6, 4)
    full = scheme.init_state(keys, 1)._replace(usage=torch.ones(BATCH, 6))
    state = scheme.after_read(torch.eye(6)[[2, 4]].expand(BATCH, 2, 6), full)
    state = scheme.before_step(torch.tensor([100.0, -100.0]).expand(BATCH, 2), state)
    torch.testing.assert_close(state.usage, torch.tensor([1.0, 1, 0, 1, 1, 1]).expand(BATCH, 6))
    assert scheme.kept(state) is None


@pytest.mark.parametrize("erase_freed", [False, True])
def test_freed_slots_are_erased_before_the_write(erase_freed):
    """With the write gate shut nothing else touches the memory."""
    write = AllocationAddressing(content(4), num_read_heads=1, erase_freed=erase_freed)
    access = ReadWriteAccess(5, content(4), write, num_slots=6, slot_size=4, memory_start=LearnedMemory(6, 4))
    with torch.no_grad():
        access.interface.weight.zero_()
        gates, first_of_read = write.emit_size, access.interface.out_features - write.shared_emit_size
        access.interface.bias[gates - 1] = -100  # write gate
        access.interface.bias[first_of_read:] = 100  # free gate
    state = access.init_state(BATCH)
    read = torch.tensor([0.0, 1, 0, 0.25, 0, 0])
    state = state._replace(write=state.write._replace(read_weights=read.expand(BATCH, 1, 6)))
    _, end = access(torch.zeros(BATCH, 5), state)
    kept = 1 - read if erase_freed else torch.ones(6)
    torch.testing.assert_close(end.memory, state.memory * kept[:, None])


def test_what_is_kept_is_asked_through_addressings_around_it():
    write = AllocationAddressing(content(4), num_read_heads=1, erase_freed=True)
    keys = torch.randn(BATCH, 6, 4)
    for around in (
        LocationAddressing(write),
        LinkAddressing(write),
        MonotonicLocalAddressing(write),
        AllocationAddressing(write, 2),
    ):
        state = around.init_state(keys, 1)
        inner = state.inner._replace(retention=torch.rand(BATCH, 6))
        assert torch.equal(around.kept(state._replace(inner=inner)), inner.retention)
    both = AllocationAddressing(write, 2, erase_freed=True)
    state = both.init_state(keys, 1)
    state = state._replace(retention=torch.rand(BATCH, 6), inner=inner)
    assert torch.equal(both.kept(state), state.retention * inner.retention)


@pytest.mark.parametrize("mode", range(5))
def test_one_read_mode_alone(mode):
    """Backward of two write heads, content, forward of both."""
    scheme = LinkAddressing(content(4), num_write_heads=2)
    keys = torch.randn(BATCH, 6, 4)
    state = scheme.init_state(keys, 3)
    for _ in range(3):
        reads, writes = torch.rand(BATCH, 3, 6).softmax(-1), torch.rand(BATCH, 2, 6).softmax(-1)
        state = scheme.after_write(writes, scheme.after_read(reads, state))
    asked = emission(scheme, 3, 1000 * torch.eye(5)[mode])
    weights, after = scheme(asked, keys, state)
    by_content, _ = scheme.inner(asked[..., :5], keys, None)
    ways = [*state.backward.unbind(1), by_content, *state.forward.unbind(1)]
    torch.testing.assert_close(weights, ways[mode])
    assert all(x is y for x, y in zip(after, state, strict=True))


@pytest.mark.parametrize("num_write_heads", [1, 3])
@pytest.mark.parametrize("sharpen", [False, True])
def test_links_of_so_many_write_heads_conform(num_write_heads, sharpen):
    check_addressing(
        lambda size: LinkAddressing(content(size), num_write_heads, sharpen),
        num_slots=[3],
        num_heads=[2],
        num_other_heads=num_write_heads,
        roles=["read"],
    )


def test_masked_cosine_score():
    """A mask of ones is the plain cosine; one that hides what differs finds the slot."""
    score, plain = MaskedCosineScore(4), CosineScore(4)
    query, keys = torch.randn(BATCH, 3, 5), torch.randn(BATCH, 6, 4)
    everything = torch.full((BATCH, 3, 4), 100.0)
    torch.testing.assert_close(score(torch.cat([query, everything], -1), keys), plain(query, keys))
    keys = torch.tensor([[[1.0, 1, -1, -1], [-1, 1, 1, -1]]])
    query = torch.tensor([100.0, 100, 100, 100, 50]).expand(1, 1, 5)
    half = torch.tensor([100.0, 100, -100, -100]).expand(1, 1, 4)
    weights = score(torch.cat([query, half], -1), keys).softmax(-1)
    torch.testing.assert_close(weights[0, 0], torch.tensor([1.0, 0]))
    torch.testing.assert_close(plain(query, keys).softmax(-1)[0, 0], torch.tensor([0.5, 0.5]))


def test_normalized_controller():
    controller = shake(NormalizedController(3, partial(FeedForwardController, hidden_size=5)).double())
    x = torch.randn(BATCH, 3, dtype=torch.float64)
    output, state = controller(x, controller.init_state(BATCH))
    inner = controller.controller(x, None)[0].detach().numpy()
    gain, bias = (p.detach().numpy() for p in (controller.norm.weight, controller.norm.bias))
    for item in range(BATCH):
        mean = sum(inner[item]) / 5
        variance = sum((h - mean) ** 2 for h in inner[item]) / 5
        expected = [
            g * (h - mean) / np.sqrt(variance + 1e-5) + b for g, h, b in zip(gain, inner[item], bias, strict=True)
        ]
        torch.testing.assert_close(output[item], torch.tensor(expected, dtype=torch.float64))
    assert state is None
    assert type(NormalizedController(3).controller) is LSTMController


def test_bypass_dropout_hides_the_controller_from_the_output_alone():
    layer = BypassedOutput(4, 3, 2, dropout=0.5)
    plain = torch.nn.functional.linear
    x = torch.randn(1000, 7)
    outputs = layer(x) - plain(x[:, 4:], layer.weight[:, 4:], layer.bias)
    rest = outputs - plain(2 * x[:, :4], layer.weight[:, :4])
    kept_all, kept_none = (y.abs().amax(1) < 1e-5 for y in (rest, outputs))
    for kept in (kept_all, kept_none):
        assert 20 < kept.sum() < 120  # of 1000 with chance 1/16: 62, standard deviation 8
    layer.eval()
    assert torch.equal(layer(x), plain(x, layer.weight, layer.bias))


def test_bypass_dropout_does_not_touch_the_memory():
    model, plain = dnc(bypass_dropout=0.9), dnc()
    plain.load_state_dict(model.state_dict())
    inputs = torch.randn(BATCH, TIME, 3)
    (dropped, end), (outputs, plain_end) = model(inputs), plain(inputs)
    assert torch.equal(end.access.memory, plain_end.access.memory)
    assert not torch.equal(dropped, outputs)
    assert torch.equal(model.eval()(inputs)[0], outputs)


def test_the_memory_stays_in_float32_under_autocast():
    model = dnc(erase_freed=True, sharpen_links=True, mask_content=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = model(torch.randn(BATCH, TIME, 3))
    assert outputs.dtype is torch.bfloat16
    assert all(x.dtype is torch.float32 for x in tree_leaves(state.access) if x is not None)
    outputs.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_more_to_remember_than_there_are_slots():
    """A full memory: finite, and nothing is allocated over what is in use."""
    model = dnc(num_slots=2)
    with torch.no_grad():
        model.cell.access.interface.weight.zero_()
        model.cell.access.interface.bias[5:7] = 100  # allocation gate and write gate
        model.cell.access.interface.bias[-2:] = -100  # free gates
    outputs, state = model(torch.randn(BATCH, 5, 3))
    torch.testing.assert_close(state.access.write.usage, torch.ones(BATCH, 2))
    with record(model) as trace:
        model(torch.randn(BATCH, 1, 3), state)
    assert not trace[WRITE].any()
    outputs.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_more_reads_than_slots():
    outputs, state = dnc(num_slots=2, num_read_heads=5)(torch.randn(BATCH, TIME, 3))
    assert outputs.isfinite().all() and state.reads.shape == (BATCH, 5, 4)


def test_lengths_and_chunks():
    model = shake(dnc(num_write_heads=2, erase_freed=True).double())
    inputs = torch.randn(BATCH, TIME, 3, dtype=torch.float64)
    outputs, end = model(inputs)
    head, middle = model(inputs[:, :2])
    tail, chunked = model(inputs[:, 2:], middle)
    torch.testing.assert_close(torch.cat([head, tail], 1), outputs)
    torch.testing.assert_close(chunked.access, end.access)
    padded, _ = model(inputs, lengths=torch.tensor([TIME, 3]))
    torch.testing.assert_close(padded[1, :3], outputs[1, :3])
    assert not padded[1, 3:].any()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_slots": 0}, "num_slots is 0, but must be a whole number of at least 1."),
        ({"num_read_heads": 0}, "num_read_heads is 0, but must be"),
        ({"bypass_dropout": 1.0}, "bypass_dropout is 1.0, but must be at least 0 and less than 1."),
        (
            {"write_addressing": AllocationAddressing(content(4), num_read_heads=3)},
            "write_addressing does not fit this memory: num_read_heads is 3, but the memory's number of",
        ),
        (
            {"read_addressing": LinkAddressing(content(4), num_write_heads=2)},
            "read_addressing does not fit this memory: num_write_heads is 2, but the memory's number of",
        ),
        ({"read_addressing": LinkAddressing(content(5))}, "read_addressing does not fit this memory: key_size is 5"),
    ],
)
def test_refusals(settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        dnc(**settings)
    with pytest.raises(ValueError, match="num_read_heads is 0"):
        AllocationAddressing(content(4), 0)
    with pytest.raises(ValueError, match="num_write_heads is -1"):
        LinkAddressing(content(4), -1)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_copy_is_learned():
    """Sequences of 1 to 5 vectors of 4 bits; chance is 12 bits, see ``test_learning``."""
    task = Copy(max_length=5, num_bits=4, batch_size=16)
    controller = partial(FeedForwardController, hidden_size=32)
    sizes = {"num_slots": 16, "slot_size": 8, "num_read_heads": 1}
    model = DNC(task.input_size, task.output_size, **sizes, controller=controller)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    bits = []
    for batch in itertools.islice(task.train_dataloader(), 400):
        evaluation = task.evaluate(model, batch)
        optimizer.zero_grad()
        evaluation.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        bits.append(evaluation.metrics["bits"].mean())
    assert torch.stack(bits[:5]).mean() > 0.9 * 12
    assert torch.stack(bits[-50:]).mean() < 12 / 3
