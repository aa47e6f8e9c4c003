"""The DNC's equations against loops written from the paper, and their gradients against finite differences."""

import itertools

import numpy as np
import pytest
import torch
from reference import dnc as slow

from memnet import functional_dnc as equations
from memnet.functional import NORM_EPS, SHARPEN_EPS
from memnet.linking import link_and_follow

BATCH, READS, WRITES, SLOTS, WIDTH = 2, 3, 2, 6, 4


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def partial_weighting(*shape):
    """Weights that sum to less than 1."""
    return normal(*shape).softmax(-1) * normal(*shape[:-1], 1).sigmoid()


def linked(steps=4, slots=SLOTS):
    """A link and a precedence as they come about."""
    link, precedence = torch.zeros(BATCH, WRITES, slots, slots).double(), torch.zeros(BATCH, WRITES, slots).double()
    for _ in range(steps):
        weights = partial_weighting(BATCH, WRITES, slots)
        link = equations.temporal_link(link, precedence, weights)
        precedence = equations.precedence(precedence, weights)
    return link, precedence


def each(function, *arguments):
    """Stacks what ``function`` gives for every combination of the arguments' first axes, which are the same."""
    lead = arguments[0].shape[: arguments[0].dim() - 1]
    rows = [function(*(x[index].numpy() for x in arguments)) for index in np.ndindex(*lead)]
    return torch.from_numpy(np.stack(rows)).reshape(*lead, -1)


def test_retention():
    gates, weights = torch.rand(BATCH, READS).double(), partial_weighting(BATCH, READS, SLOTS)
    expected = np.stack([slow.retention(g.numpy(), w.numpy()) for g, w in zip(gates, weights, strict=True)])
    torch.testing.assert_close(equations.retention(gates, weights), torch.from_numpy(expected))
    assert not equations.retention(torch.ones(1, 2), torch.tensor([[[1.0, 0], [0.5, 0]]]))[0, 0]


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_usage_after_write(writes):
    usage, weights = torch.rand(BATCH, SLOTS).double(), partial_weighting(BATCH, writes, SLOTS)
    expected = np.stack([slow.usage_after_write(u.numpy(), w.numpy()) for u, w in zip(usage, weights, strict=True)])
    torch.testing.assert_close(equations.usage_after_write(usage, weights), torch.from_numpy(expected))


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 40])
def test_allocation(slots):
    usage = torch.rand(5, slots).double()
    usage[1] = usage[1].round()
    usage[2] = usage[2, :1]
    usage[3], usage[4] = 0, 1
    weights = equations.allocation(usage)
    torch.testing.assert_close(weights, each(slow.allocation, usage))
    assert (weights >= 0).all()
    assert (weights.sum(-1) <= 1 + 1e-12).all()
    torch.testing.assert_close(weights[3], torch.eye(slots)[0].double())  # of equals the first
    assert not weights[4].any()


@pytest.mark.parametrize("lowest", [1e-3, 0.5])
def test_gradient_of_allocation(lowest):
    usage = torch.rand(3, 7, dtype=torch.float64) * 0.9 + 0.05
    usage[:, 4] = lowest
    torch.autograd.gradcheck(equations.allocation, usage.requires_grad_())


def in_this_order(usage):
    """Allocation over slots that are sorted already, as products that autograd derives."""
    one = usage.new_ones(())
    products = [one]
    for value in usage[:-1]:
        products.append(products[-1] * value)
    return (1 - usage) * torch.stack(products)


@pytest.mark.parametrize(
    "usage",
    [
        [0.3, 0.3, 0.3, 0.7],
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.5, 0.5],
        [0.0, 0.4, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        [1e-30, 1e-30, 0.5, 1.0],
        [1e-300, 0.2, 0.2, 1.0],
        [0.6],
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient_of_allocation_where_usages_tie(usage, dtype):
    usage = torch.tensor(usage, dtype=dtype, requires_grad=True)
    direction = torch.randn(len(usage), dtype=dtype)
    (gradient,) = torch.autograd.grad(equations.allocation(usage[None])[0] @ direction, usage)
    (expected,) = torch.autograd.grad(in_this_order(usage) @ direction, usage)
    torch.testing.assert_close(gradient, expected, atol=1e-6 if dtype is torch.float32 else 1e-12, rtol=1e-5)


def test_gradient_of_allocation_over_many_slots_that_are_hardly_used():
    usage = (torch.rand(4, 1000) * torch.tensor([[1e-6], [1e-3], [0.1], [1.0]])).requires_grad_()
    exact = usage.detach().double().requires_grad_()
    direction = torch.randn(4, 1000)
    (gradient,) = torch.autograd.grad((equations.allocation(usage) * direction).sum(), usage)
    (expected,) = torch.autograd.grad((equations.allocation(exact) * direction).sum(), exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-5)  # sums of a thousand roundings


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_allocation_under_autocast_is_not_in_half_precision(dtype):
    usage = torch.rand(2, 9).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        weights = equations.allocation(usage)
    assert weights.dtype is torch.float32
    assert torch.equal(weights, equations.allocation(usage.float()))


def test_precedence():
    previous, weights = partial_weighting(BATCH, WRITES, SLOTS), partial_weighting(BATCH, WRITES, SLOTS)
    expected = each(slow.precedence, previous, weights)
    torch.testing.assert_close(equations.precedence(previous, weights), expected)


def test_temporal_link_and_where_it_leads():
    link, precedence = linked()
    weights, reads = partial_weighting(BATCH, WRITES, SLOTS), partial_weighting(BATCH, READS, SLOTS)
    new = equations.temporal_link(link, precedence, weights)
    forward, backward = equations.forward_weights(new, reads), equations.backward_weights(new, reads)
    for item, head in np.ndindex(BATCH, WRITES):
        expected = slow.temporal_link(*(x[item, head].numpy() for x in (link, precedence, weights)))
        torch.testing.assert_close(new[item, head], torch.from_numpy(expected))
        for read in range(READS):
            for ours, theirs in [(forward, slow.forward_weights), (backward, slow.backward_weights)]:
                led = theirs(expected, reads[item, read].numpy())
                torch.testing.assert_close(ours[item, head, read], torch.from_numpy(led))


@pytest.mark.parametrize("slots", [1, 2, SLOTS])
def test_the_step_in_one_is_the_equations_one_by_one(slots):
    link, precedence = linked(slots=slots)
    weights, reads = partial_weighting(BATCH, WRITES, slots), partial_weighting(BATCH, READS, slots)
    given = [x.requires_grad_() for x in (link, precedence, weights, reads)]
    at_once = link_and_follow(*given)
    new = equations.temporal_link(*given[:3])
    followed = equations.backward_weights(new, reads), equations.forward_weights(new, reads)
    expected = new, equations.precedence(precedence, weights), *followed
    torch.testing.assert_close(at_once, expected)
    for used in ([0, 1, 2, 3], [0], [1], [2], [3], [0, 3]):
        direction = [torch.randn_like(expected[place]) for place in used]
        loss, other = (
            sum((outputs[place] * d).sum() for place, d in zip(used, direction, strict=True))
            for outputs in (at_once, expected)
        )
        ours = torch.autograd.grad(loss, given, retain_graph=True, allow_unused=True, materialize_grads=True)
        theirs = torch.autograd.grad(other, given, retain_graph=True, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(ours, theirs)


def test_gradient_of_the_step_in_one():
    given = *linked(), partial_weighting(BATCH, WRITES, SLOTS), partial_weighting(BATCH, READS, SLOTS)
    torch.autograd.gradcheck(link_and_follow, [x.requires_grad_() for x in given], fast_mode=True)


def test_the_link_keeps_its_invariants_over_many_steps():
    """Rows and columns sum to at most 1, the diagonal is 0, precedence is a weighting; also for weights of just 1."""
    link, precedence = torch.zeros(BATCH, 1, SLOTS, SLOTS), torch.zeros(BATCH, 1, SLOTS)
    reads = torch.rand(BATCH, READS, SLOTS).softmax(-1)
    for step in range(60):
        weights = (4 * torch.randn(BATCH, 1, SLOTS)).softmax(-1) if step % 3 else torch.eye(SLOTS)[step % 5]
        weights = weights.expand(BATCH, 1, SLOTS) * (torch.rand(BATCH, 1, 1) if step % 2 else 1)
        link, precedence, backward, forward = link_and_follow(link, precedence, weights, reads)
        assert not link.diagonal(dim1=-2, dim2=-1).any()
        for sums in (link.sum(-1), link.sum(-2), precedence.sum(-1), backward.sum(-1), forward.sum(-1)):
            assert (sums <= 1 + 1e-5).all()
        assert min(backward.min(), forward.min()) >= 0
        assert min(link.min(), precedence.min()) > -1e-6  # what rounding leaves where weights sum to just above 1


def test_what_is_written_slot_after_slot_is_walked_forward_and_backward():
    link, precedence = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5)
    order = [3, 0, 4, 1]
    at = torch.eye(5)[None, None]
    for slot in order:
        link, precedence, *_ = link_and_follow(link, precedence, at[:, :, slot], torch.zeros(1, 1, 5))
    assert torch.equal(precedence, at[:, :, order[-1]])
    for before, after in itertools.pairwise(order):
        assert torch.equal(equations.forward_weights(link, at[:, :, before])[:, 0], at[:, :, after])
        assert torch.equal(equations.backward_weights(link, at[:, :, after])[:, 0], at[:, :, before])
    assert not equations.forward_weights(link, at[:, :, order[-1]]).any()
    assert not equations.backward_weights(link, at[:, :, order[0]]).any()


def test_read_modes():
    modes = normal(BATCH, READS, 1 + 2 * WRITES).softmax(-1)
    back, forth = (partial_weighting(BATCH, WRITES, READS, SLOTS) for _ in range(2))
    content = normal(BATCH, READS, SLOTS).softmax(-1)
    mixed = equations.mix_read_modes(modes, back, content, forth)
    for item, head in np.ndindex(BATCH, READS):
        ways = [*back[item, :, head], content[item, head], *forth[item, :, head]]
        expected = sum(share * way for share, way in zip(modes[item, head], ways, strict=True))
        torch.testing.assert_close(mixed[item, head], expected)
    ways = [*back.unbind(1), content, *forth.unbind(1)]
    for mode, way in enumerate(ways):
        only = torch.eye(1 + 2 * WRITES).double()[mode].expand(BATCH, READS, -1)
        assert torch.equal(equations.mix_read_modes(only, back, content, forth), way)


def test_sharpen_link():
    weights = partial_weighting(BATCH, WRITES, READS, SLOTS)
    sharpness = 1 + torch.rand(BATCH, 1, READS, 1).double()
    sharp = equations.sharpen_link(weights, sharpness)
    for item, head, read in np.ndindex(BATCH, WRITES, READS):
        power = sharpness[item, 0, read, 0].item()
        expected = slow.sharpen_link(weights[item, head, read].numpy(), power, SHARPEN_EPS)
        torch.testing.assert_close(sharp[item, head, read], torch.from_numpy(expected))
    torch.testing.assert_close(sharp.sum(-1), weights.sum(-1))
    torch.testing.assert_close(equations.sharpen_link(weights, torch.ones_like(sharpness)), weights, atol=1e-7, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1.0])
def test_sharpening_what_is_hardly_linked_has_a_bounded_gradient(scale):
    weights = (scale * torch.rand(1, 1, 1, 9).softmax(-1)).requires_grad_()
    sharp = equations.sharpen_link(weights, torch.full((1, 1, 1, 1), 3.0))
    torch.testing.assert_close(sharp.sum(), torch.tensor(scale), atol=0, rtol=1e-5)
    (gradient,) = torch.autograd.grad(sharp[..., 0].sum(), weights)
    assert gradient.abs().max() < 10


def test_masked_cosine():
    queries, keys, mask = normal(BATCH, READS, WIDTH), normal(BATCH, SLOTS, WIDTH), torch.rand(BATCH, READS, WIDTH)
    similarity = equations.masked_cosine_similarity(queries, mask.double(), keys)
    for item, head, slot in np.ndindex(BATCH, READS, SLOTS):
        parts = queries[item, head], mask[item, head].double(), keys[item, slot]
        expected = slow.masked_cosine(*(x.numpy() for x in parts), NORM_EPS)
        torch.testing.assert_close(similarity[item, head, slot].item(), expected)
