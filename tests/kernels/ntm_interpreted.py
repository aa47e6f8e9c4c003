"""The GPU's kernels for the Neural Turing Machine, run on the CPU by Triton's interpreter, beside the plain loop.

Triton has to be told before it is imported, so ``test_ntm_triton.py`` runs this file in a process of its own. By hand:
``TRITON_INTERPRET=1 pytest -n 0 tests/kernels/ntm_interpreted.py``. The interpreter takes a second for some ten steps,
hence the small sizes and the many things in one test.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comparing import CONTROLLERS, assert_right, assert_same, compare, make, results, states, weigh
from torch import Tensor

from memnet import kernels, unroll
from memnet.kernels import ntm_cell, ntm_cpu, ntm_cuda, ntm_cuda_sizes

interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="TRITON_INTERPRET=1 is not set")


def _prepare_interpreter() -> None:
    """Mends one thing that Triton 3.6 cannot do with NumPy 2.4, and halves the time that it takes."""
    patch_tensor, patch_language = interpreter._patch_lang_tensor, interpreter._patch_lang
    launch = interpreter.GridExecutor.__call__
    patched: set[Any] = set()

    def patch_tensor_and_index(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        # int() of an array with one element is an error by now.
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def patch_language_once(function: Any) -> Any:
        """And not for each call of each function within a launch."""
        names = tuple(function.__globals__.get(name) for name in ("tl", "core"))
        if names in patched:
            return interpreter._LangPatchScope()
        patched.add(names)
        return patch_language(function)

    @functools.wraps(launch)
    def launch_anew(self: Any, *arguments: Any, **options: Any) -> Any:
        patched.clear()
        return launch(self, *arguments, **options)

    interpreter._patch_lang_tensor = patch_tensor_and_index
    interpreter._patch_lang = patch_language_once
    interpreter.GridExecutor.__call__ = launch_anew


_prepare_interpreter()


@pytest.fixture(autouse=True)
def _on_this_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The GPU's kernels take over here, and memory that nobody has written holds NaN."""
    monkeypatch.setattr(ntm_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(ntm_cuda, "_works", lambda sizes, device: True)
    monkeypatch.setattr(ntm_cpu, "fits", lambda *arguments: False)
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def test_the_kernel_is_found_once_it_has_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr(ntm_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(ntm_cpu, "fits", lambda *arguments: False)
    monkeypatch.setattr(ntm_cuda, "_tried", {})
    model = make(num_read_heads=2, max_gradient=1.0)
    inputs, state = torch.randn(2, 3, 4), model.cell.init_state(2)
    assert kernels.find(model.cell, inputs, state) is ntm_cuda.run
    assert list(ntm_cuda._tried.values()) == [True]
    with kernels.disabled():
        assert kernels.find(model.cell, inputs, state) is None


class Touched:
    """What a program has loaded and stored since its threads have last waited for one another."""

    def __init__(self) -> None:
        self.barriers = True
        self.forget()

    def forget(self) -> None:
        self.loaded: set[int] = set()
        self.stored: set[int] = set()

    def wait(self) -> None:
        if self.barriers:
            self.forget()

    def load(self, places: set[int]) -> None:
        assert not places & self.stored, "loaded without a barrier after it was stored"
        self.loaded |= places

    def store(self, places: set[int]) -> None:
        assert not places & (self.loaded | self.stored), "stored without a barrier after it was loaded or stored"
        self.stored |= places


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> Touched:
    """Finds what threads of one program could do in another order than the interpreter does."""
    builder, notes = interpreter.interpreter_builder, Touched()
    load, store, begin = builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx

    def places(pointers: Any, mask: Any) -> set[int]:
        return set(pointers.data[mask.data].ravel().tolist())

    def noted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        notes.load(places(pointers, mask))
        return load(pointers, mask, *rest)

    def noted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        notes.store(places(pointers, mask))
        return store(pointers, value, mask, *rest)

    def noted_begin(*place: Any) -> Any:
        notes.forget()
        return begin(*place)

    monkeypatch.setattr(builder, "create_masked_load", noted_load)
    monkeypatch.setattr(builder, "create_masked_store", noted_store)
    monkeypatch.setattr(builder, "create_barrier", notes.wait)
    monkeypatch.setattr(builder, "set_grid_idx", noted_begin)
    return notes


@pytest.mark.parametrize("controller", ["lstm-2", "feed-forward-2"])
def test_threads_wait_for_one_another(controller: str, touched: Touched, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ntm_cuda_sizes, "COLUMNS", 16)  # a layer in two pieces
    model = make(4, 3, controller=CONTROLLERS[controller], num_read_heads=2)
    inputs, start = torch.randn(1, 3, 4), states(model, 1)
    results(model, inputs, start)
    with torch.no_grad():
        unroll(model.cell, inputs, ntm_cell.state_of(start))
    touched.barriers = False
    with pytest.raises(interpreter.InterpreterError, match="without a barrier"):
        results(model, inputs, start)


def test_one_layer_one_head_padded():
    compare(make(), batch=2, time=4, lengths=torch.tensor([2, 4]))


@pytest.mark.parametrize(("write_heads", "max_gradient"), [(1, 0.05), (3, None)])
def test_two_layers_many_heads_padded(write_heads: int, max_gradient: float | None):
    heads = {"num_read_heads": 2, "num_write_heads": write_heads}
    model = make(6, 4, controller=CONTROLLERS["lstm-2"], max_gradient=max_gradient, **heads)
    compare(model, batch=2, time=2, lengths=torch.tensor([2, 1]))


def test_three_layers():
    compare(make(4, 3, controller=CONTROLLERS["lstm-3"]), batch=1, time=2)


@pytest.mark.parametrize(("layers", "max_gradient"), [(1, None), (2, 0.05)])
def test_feed_forward(layers: int, max_gradient: float | None):
    controller = CONTROLLERS[f"feed-forward-{layers}"]
    model = make(controller=controller, num_write_heads=layers, max_gradient=max_gradient)
    compare(model, batch=2, time=3, lengths=torch.tensor([3, 1]))


@pytest.mark.parametrize(("slots", "slot_size", "shifts"), [(1, 2, 5), (2, 3, 7), (9, 17, 1)])
def test_odd_sizes_in_one_step(slots: int, slot_size: int, shifts: int):
    compare(make(slots, slot_size, num_shifts=shifts), batch=1, time=1)


@pytest.mark.parametrize("controller", ["lstm-2", "feed-forward-2"])
def test_weights_that_are_too_large_for_one_piece(controller: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ntm_cuda_sizes, "COLUMNS", 8)
    monkeypatch.setattr(ntm_cuda_sizes, "NUMBERS_OF_A_THREAD", 1)
    model = make(5, 3, controller=CONTROLLERS[controller])
    sizes = ntm_cuda_sizes.Sizes(ntm_cell.sizes_of(model.cell), False)
    assert sizes.of_forward(True)["COLUMNS"] < sizes.cell.hidden > sizes.of_forward(True)["EMISSION_ROWS"]
    assert sizes.of_backward()["COLUMNS"] < sizes.cell.hidden and sizes.of_backward()["ROWS"] < sizes.gates
    compare(model, batch=1, time=2)


@pytest.mark.parametrize("segment", [1, 9])
def test_how_many_memories_are_kept_does_not_matter(segment: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ntm_cuda, "_segment", lambda time: segment)
    compare(make(3, 2), batch=1, time=3)


def test_gradients_from_the_memory_alone():
    def loss_of(tensors: list[Tensor]) -> Tensor:
        return weigh([tensors[3]])

    model = make(3, 2)
    inputs, start = torch.randn(2, 2, 4), states(model, 2)
    assert_right(model, inputs, start, torch.tensor([2, 1]), loss_of)


def test_without_gradients_the_numbers_are_the_same():
    model, lengths = make(5, 3, controller=CONTROLLERS["lstm-2"]), torch.tensor([3, 1])
    inputs, start = torch.randn(2, 3, 4), states(model, 2)
    trained = results(model, inputs, start, lengths)
    with torch.no_grad():
        outputs, state = unroll(model.cell, inputs, ntm_cell.state_of(start), lengths)
    assert torch.equal(outputs, trained.forward["outputs"])
    for i, x in enumerate(ntm_cell.state_tensors(state)):
        assert torch.equal(x, trained.forward[f"end {i}"])


def test_only_what_asks_for_a_gradient_gets_one():
    model = make(3, 2)
    inputs = torch.randn(1, 2, 4)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.cell.output.bias.requires_grad_()
    outputs, _ = model(inputs)
    outputs.sum().backward()
    assert model.cell.output.bias.grad.eq(2).all()
    assert all(x.grad is None for x in model.parameters() if x is not model.cell.output.bias)


def test_the_backward_pass_may_be_repeated_and_shares_nothing():
    model = make(3, 2)
    outputs, _ = model(torch.randn(2, 2, 4))
    parameters = [x for name, x in model.named_parameters() if "initial" not in name and "start" not in name]
    first = torch.autograd.grad(outputs.square().sum(), parameters, retain_graph=True)
    second = torch.autograd.grad(outputs.square().sum(), parameters)
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)
    assert len({x.data_ptr() for x in (*first, *second)}) == 2 * len(parameters)


def test_tensors_that_are_not_contiguous():
    model = make(3, 2)
    for linear in (model.cell.output, model.cell.access.interface):
        linear.weight = torch.nn.Parameter(linear.weight.detach().t().contiguous().t())
    inputs = torch.randn(4, 2, 1).permute(2, 1, 0)
    assert not inputs.is_contiguous() and not model.cell.output.weight.is_contiguous()
    assert_right(model, inputs, states(model, 1))


def test_nan_stays_nan():
    model = make(5, 3, max_gradient=0.1)
    inputs, start = torch.randn(2, 2, 4), states(model, 2)
    start[2][1, 3, 0] = torch.nan
    got = results(model, inputs, start)
    with kernels.disabled():
        expected = results(model, inputs, start)
    for part, others in zip(got, expected, strict=True):
        for name, other in others.items():
            assert torch.equal(part[name].isnan(), other.isnan()), name
    assert got.forward["outputs"][1].isnan().any() and torch.isfinite(got.forward["outputs"][0]).all()


def test_what_stands_in_the_padding_does_not_matter():
    model, lengths = make(3, 2), torch.tensor([1, 2])
    inputs, start = torch.randn(2, 2, 4), states(model, 2)
    first = results(model, inputs, start, lengths)
    inputs[0, 1:] = 1e30
    assert_same(results(model, inputs, start, lengths), first)
    assert not first.forward["outputs"][0, 1:].any() and not first.gradients["inputs"][0, 1:].any()
