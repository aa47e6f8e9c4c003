"""The GPU's kernels for the Neural Turing Machine on a GPU, beside the plain loop there."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from comparing import CONTROLLERS, assert_right, assert_same, make, results, states

from memnet import NTM, FeedForwardController, LSTMController, kernels, unroll
from memnet.kernels import ntm_cell, ntm_cuda, ntm_cuda_passes

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or not ntm_cuda._has_triton(), reason="there is no GPU with Triton here"
)


def compare(model: NTM, batch: int = 3, time: int = 5, lengths: list[int] | None = None) -> None:
    """The kernel, the plain loop and the plain loop in double precision, with NaN where nobody has written."""
    model = model.cuda()
    inputs = torch.randn(batch, time, model.cell.input_size, device="cuda")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations of the plain loop that have no deterministic form
            assert_right(model, inputs, states(model, batch), None if lengths is None else torch.tensor(lengths))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("slots", "slot_size", "shifts"), [(1, 1, 1), (2, 3, 7), (7, 5, 3), (130, 33, 5), (512, 20, 3)]
)
def test_sizes_of_memory(slots: int, slot_size: int, shifts: int):
    compare(make(slots, slot_size, num_shifts=shifts))


@pytest.mark.parametrize(("read_heads", "write_heads"), [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_controllers_and_heads(controller: str, read_heads: int, write_heads: int):
    heads = {"num_read_heads": read_heads, "num_write_heads": write_heads}
    compare(make(controller=CONTROLLERS[controller], **heads), lengths=[2, 5, 1])


@pytest.mark.parametrize("hidden_size", [1, 130, 300])
@pytest.mark.parametrize("kind", [LSTMController, FeedForwardController])
def test_controllers_of_other_widths(kind: type, hidden_size: int):
    gain = 1.5 if hidden_size < 100 else 1.0
    compare(make(controller=partial(kind, hidden_size=hidden_size, num_layers=2), gain=gain))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 9), (5, 1), (700, 4)])
def test_numbers_of_sequences_and_steps(batch: int, time: int):
    compare(make(), batch, time)


@pytest.mark.parametrize("max_gradient", [1.0, 1e-3])
@pytest.mark.parametrize("controller", ["lstm-2", "feed-forward-2"])
def test_clipped_gradients_of_the_state(controller: str, max_gradient: float):
    compare(make(controller=CONTROLLERS[controller], max_gradient=max_gradient), batch=2, time=6, lengths=[6, 3])


def copy_task(**options: Any) -> NTM:
    """As large as in the paper."""
    return NTM(9, 8, num_slots=128, slot_size=20, **options)


def test_the_copy_task():
    compare(copy_task(), batch=32, time=41)


@pytest.mark.parametrize("model", [copy_task, partial(make, 40, 8, num_read_heads=2, num_write_heads=2)])
def test_the_same_bits_again_and_again(model: Any):
    """Threads that do not wait for one another would differ from run to run."""
    model = model().cuda()
    inputs, start = torch.randn(200, 30, model.cell.input_size, device="cuda"), states(model, 200)
    first = results(model, inputs, start)
    for _ in range(10):
        assert_same(results(model, inputs, start), first)


def test_without_gradients_the_numbers_are_the_same():
    model = copy_task().cuda()
    inputs, start = torch.randn(8, 30, 9, device="cuda"), states(model, 8)
    lengths = torch.arange(8, device="cuda") + 23
    trained = results(model, inputs, start, lengths)
    with torch.no_grad():
        outputs, state = unroll(model.cell, inputs, ntm_cell.state_of(start), lengths)
    assert torch.equal(outputs, trained.forward["outputs"])
    for i, x in enumerate(ntm_cell.state_tensors(state)):
        assert torch.equal(x, trained.forward[f"end {i}"])


def test_other_lengths_and_batches_take_no_other_kernel():
    """Compiling takes seconds, and a curriculum draws another length for each batch."""
    model = copy_task().cuda()

    def compiled_after(batch: int, time: int) -> int:
        model(torch.randn(batch, time, 9, device="cuda"))[0].sum().backward()
        passes = map(ntm_cuda_passes._kernel, ("forward", "backward"))
        return sum(len(cache[0]) for one in passes for cache in one.device_caches.values())

    assert len({compiled_after(*shape) for shape in ((4, 16), (1, 1), (3, 17), (16, 32))}) == 1


def test_half_precision_takes_the_plain_loop():
    model = copy_task().cuda()
    inputs = torch.randn(2, 3, 9, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert kernels.find(model.cell, inputs, model.cell.init_state(2)) is None
    model.bfloat16()
    assert kernels.find(model.cell, inputs.bfloat16(), model.cell.init_state(2)) is None
