"""The temporal link's kernel against the equations, its place in the DNC, and where it steps aside."""

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

from memnet import DNC, kernels
from memnet.kernels import build, dnc_cpu, link_cpu
from memnet.linking import link_and_follow

pytestmark = pytest.mark.skipif(build.load(link_cpu.SOURCE) is None, reason="there is no C++ compiler here")


def given(batch=2, writes=2, reads=3, slots=7):
    link = torch.rand(batch, writes, slots, slots) / slots
    weights = [torch.randn(batch, heads, slots).softmax(-1) for heads in (writes, writes, reads)]
    return [x.requires_grad_() for x in (link * (1 - torch.eye(slots)), *weights)]


SIZES = [
    {},
    {"batch": 1, "writes": 1, "reads": 1, "slots": 1},
    {"writes": 1, "reads": 4, "slots": 16},
    {"batch": 3, "slots": 33},
    {"batch": 17, "writes": 1, "reads": 1, "slots": 128},  # more than one thread's work
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("used", [[0, 1, 2, 3], [0], [1], [2], [3]], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_computes_the_equations(sizes, used, threads):
    single = given(**sizes)
    double = [x.detach().double().requires_grad_() for x in single]
    assert kernels.find_link(*single) is link_cpu and kernels.find_link(*double) is None
    torch.set_num_threads(threads)
    try:
        ours, theirs = link_and_follow(*single), link_and_follow(*double)
        directions = [torch.randn_like(x) for x in ours]
        gradients = [
            torch.autograd.grad(sum((results[k] * directions[k]).sum() for k in used), sources, allow_unused=True)
            for results, sources in ((ours, single), (theirs, double))
        ]
    finally:
        torch.set_num_threads(1)
    # Sums of up to 128 roundings of 6e-8, each of numbers around 1.
    for x, y in zip((*ours, *gradients[0]), (*theirs, *gradients[1]), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-5)


def test_strided_tensors_are_taken_as_they_are():
    straight = given()
    link, *weights = (x.detach() for x in straight)
    strided = [link.mT.contiguous().mT, *(torch.stack([x, x], -1)[..., 0] for x in weights)]
    assert not any(x.is_contiguous() for x in strided)
    for x, y in zip(link_and_follow(*strided), link_and_follow(*straight), strict=True):
        assert torch.equal(x, y)


def test_what_was_given_is_left_alone_and_nothing_is_shared():
    tensors = given()
    before = [x.detach().clone() for x in tensors]
    results = link_and_follow(*tensors)
    again = link_and_follow(*tensors)
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert all(torch.equal(x, y) and x.data_ptr() != y.data_ptr() for x, y in zip(results, again, strict=True))


def test_nan_stays_nan():
    link, *weights = (x.detach() for x in given())
    link[0, 0, 1, 2] = torch.nan
    new, _, backward, forward = link_and_follow(link, *weights)
    assert new[0, 0, 1, 2].isnan() and backward[0, 0, :, 2].isnan().all() and forward[0, 0, :, 1].isnan().all()
    assert not new[1].isnan().any()


@pytest.mark.parametrize("heads", [(1, 1), (3, 2)])
def test_a_dnc_is_the_same_with_and_without(heads, monkeypatch):
    monkeypatch.setattr(dnc_cpu, "fits", lambda *arguments: False)  # the whole sequence's kernel comes first
    reads, writes = heads
    model = DNC(3, 2, num_slots=9, slot_size=4, num_read_heads=reads, num_write_heads=writes)
    inputs = torch.randn(4, 12, 3)
    lengths = torch.tensor([12, 3, 7, 12])
    results = []
    for surroundings in (torch.enable_grad, kernels.disabled):
        model.zero_grad()
        with surroundings():
            outputs, state = model(inputs, lengths=lengths)
            (outputs.square().sum() + state.access.read.link.sum()).backward()
        results.append((outputs, state, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(*results)


def test_it_steps_aside():
    tensors = given()
    with kernels.disabled():
        assert kernels.find_link(*tensors) is None
    assert kernels.find_link(*(x.detach().to("meta") for x in tensors)) is None
    seen = []
    torch.func.grad(lambda x: (seen.append(kernels.find_link(x, *tensors[1:])), x.sum())[1])(tensors[0].detach())
    assert seen == [None]


@pytest.mark.usefixtures("unchecked")
def test_as_one_operation_of_a_compiled_program():
    seen = []

    def backend(graph, examples):
        seen.extend(node.target for node in graph.graph.nodes)
        return aot_eager(graph, examples)

    tensors = given()
    torch.library.opcheck(torch.ops.memnet.link_step, tensors)
    results = torch.compile(link_and_follow, backend=backend, fullgraph=True)(*tensors)
    assert any("link_step" in str(target) for target in seen)
    expected = link_and_follow(*tensors)
    directions = [torch.randn_like(x) for x in expected]
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.equal(ours, theirs)
    gradients = [
        torch.autograd.grad(sum((x * d).sum() for x, d in zip(each, directions, strict=True)), tensors)
        for each in (results, expected)
    ]
    torch.testing.assert_close(*gradients)
    for used in range(4):
        gradients = [
            torch.autograd.grad(
                (each[used] * directions[used]).sum(), tensors, allow_unused=True, materialize_grads=True
            )
            for each in (torch.ops.memnet.link_step(*tensors), link_and_follow(*tensors))
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("unchecked")
def test_a_compiled_program_without_it_has_the_equations():
    tensors = [x.detach().double() for x in given()]
    torch._dynamo.reset()
    results = torch.compile(link_and_follow, backend="aot_eager", fullgraph=True)(*tensors)
    torch.testing.assert_close(results, link_and_follow(*tensors))
