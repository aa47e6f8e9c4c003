"""Programs that are recorded and replayed, with a recorder that needs no GPU.

It runs the program again on what it has recorded, and spoils what all other recordings have written, as recordings that
share one pool of memory may.
"""

import copy
import warnings

import pytest
import torch
from test_compiling import BATCH, TIME, assert_same, make_model

from memnet import compiling, unroll
from memnet.compiling import graphs
from memnet.compiling.graphs import Recording, Replayed


class Recorder:
    def __init__(self):
        self.written = []
        self.replays = 0

    def __call__(self, program, arguments):
        places = {each.untyped_storage().data_ptr() for each in arguments if isinstance(each, torch.Tensor)}

        def is_new(each):
            return isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in places

        # Where others lie beside it in memory, a result keeps its strides.
        results = [graphs._Copy(each).whole if is_new(each) else each for each in program(list(arguments))]
        own = [each for each in results if is_new(each)]
        self.written.append(own)

        def replay():
            self.replays += 1
            for others in self.written:
                for each in others if others is not own else []:
                    each.fill_(float("nan") if each.is_floating_point() else 1)
            for old, new in zip(own, filter(is_new, program(list(arguments))), strict=True):
                old.copy_(new)

        return Recording(replay, results)


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(graphs, "record", made)
    monkeypatch.setattr(graphs, "wanted", lambda arguments: True)
    return made


def program(arguments):
    """A sum, an argument as it is, a number, a transposed tensor and one whose rows are one."""
    x, weight, number = arguments
    arguments.clear()
    return [x + weight, x, number, (x * number).t().contiguous().t(), x[:1].expand(3, -1)]


def call(replayed, x, weight, number=2):
    arguments = [x, weight, number]
    results = replayed.again(arguments, {1})
    assert arguments == []
    return results


def test_each_call_has_results_of_its_own(recorder):
    replayed, weight = Replayed(program), torch.randn(3, 4)
    xs = [torch.randn(3, 4) for _ in range(4)]
    found = [call(replayed, x, weight) for x in xs]
    assert recorder.replays == 4 and len(recorder.written) == 1
    for x, results in zip(xs, found, strict=True):
        for own, right in zip(results, program([x, weight, 2]), strict=True):
            assert own == right if isinstance(own, int) else own.equal(right) and own.stride() == right.stride()
        assert results[1] is x  # the caller's own, not a copy


def test_what_is_constant_is_read_where_it_is(recorder):
    replayed, weight, x = Replayed(program), torch.randn(3, 4), torch.randn(3, 4)
    call(replayed, x, weight)
    weight += 1
    assert call(replayed, x, weight)[0].equal(x + weight) and len(recorder.written) == 1
    elsewhere = weight.clone() + 1
    assert call(replayed, x, elsewhere)[0].equal(x + elsewhere) and len(recorder.written) == 2


@pytest.mark.parametrize("other", [(torch.ones(2, 4), 2), (torch.ones(4, 3).t(), 2), (torch.ones(3, 4), 5)])
def test_other_arguments_are_recorded_anew(recorder, other):
    replayed, weight = Replayed(program), torch.randn(1, 4)
    call(replayed, torch.randn(3, 4), weight)
    x, number = other
    results = call(replayed, x, weight, number)
    assert results[0].equal(x + weight) and results[2] == number and len(recorder.written) == 2


def test_parameters_that_wander_are_not_recorded_for_ever(recorder):
    replayed, x = Replayed(program), torch.randn(3, 4)
    weights = [torch.randn(3, 4) for _ in range(2 * graphs.MOST_RECORDINGS)]
    with pytest.warns(UserWarning, match=r"cannot record a compiled step .*: its parameters were in 20 places"):
        found = [call(replayed, x, weight)[0] for weight in weights]
    assert all(own.equal(x + weight) for own, weight in zip(found, weights, strict=True))
    assert len(recorder.written) == graphs.MOST_RECORDINGS - 1


def test_what_cannot_be_recorded_is_run_after_one_warning(monkeypatch):
    def record(program, arguments):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "wanted", lambda arguments: True)
    replayed, x = Replayed(program), torch.randn(3, 4)
    with pytest.warns(UserWarning, match="one by one, which is slower: operation not permitted when stream is captur"):
        assert call(replayed, x, x)[0].equal(x + x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(replayed, x, x)[0].equal(x + x)


def test_on_a_cpu_nothing_is_recorded(monkeypatch):
    monkeypatch.setattr(graphs, "record", None)
    assert not graphs.wanted([torch.ones(2), 3]) and not graphs.wanted([3])
    x = torch.randn(3, 4)
    assert call(Replayed(program), x, x)[0].equal(x + x)


@pytest.fixture(scope="module")
def shared():
    """One for all tests of sequences: their cell's step is compiled once, and recorded once."""
    made = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "record", made)
        patch.setattr(graphs, "wanted", lambda arguments: True)
        yield made


@pytest.fixture(scope="module")
def cell(shared):
    return make_model().cell


def test_a_replayed_sequence_is_the_plain_loops(cell, shared):
    """Outputs, states and gradients; with sequences that end early; and with the parameters elsewhere."""
    inputs = torch.randn(BATCH, TIME, 3)
    assert not shared.written
    assert_same(cell, inputs)
    # A step forwards and one backwards, each of which was taken by way of the compiler where it came first.
    assert len(shared.written) == 2 and shared.replays == 2 * (TIME - 1) + 1
    assert_same(cell, inputs, lengths=torch.tensor([7, 2, 4]))
    assert not compiling._captured[cell].broken
    before = len(shared.written)
    assert_same(cell, inputs + 1)
    assert len(shared.written) == before
    cell.load_state_dict({name: each + 0.1 for name, each in cell.state_dict().items()}, assign=True)
    assert_same(cell, inputs)


def test_two_sequences_may_wait_for_their_backward_passes(cell, shared):
    inputs, before = [torch.randn(BATCH, TIME, 3) for _ in range(2)], shared.replays

    def gradients(compile_steps):
        outputs = [unroll(cell, each, compile_steps=compile_steps)[0] for each in inputs]
        return torch.autograd.grad(sum(each.square().sum() for each in outputs), [*cell.parameters()])

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))
    assert shared.replays >= before + 2 * (2 * TIME - 1)


def test_a_copied_cell_has_recordings_of_its_own(cell):
    """``copy.deepcopy`` and pickling know nothing of them."""
    inputs = torch.randn(BATCH, TIME, 3)
    assert_same(cell, inputs)
    other = copy.deepcopy(cell)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter *= 0.9
    assert_same(other, inputs)
    assert_same(cell, inputs)
