"""A floor holds what the plain loop cannot do without, and nothing else."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from memnet import NTM, FeedForwardController, LSTMController, kernels
from memnet.bench import floors
from memnet.bench.benchmarks.date import DateWork, PlainSeq2Seq
from memnet.bench.floors import BLOCK_FLOATS, Passes, Product, ntm_passes, ntm_products, passes_part, products_part
from memnet.kernels.ntm_cell import sizes_of

CPU = torch.device("cpu")
aten = torch.ops.aten


def flops_of(run, *kinds):
    with FlopCounterMode(display=False) as counter:
        run()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for kind, count in counts.items() if not kinds or kind in kinds)


@pytest.fixture
def without_onednn(monkeypatch):
    """Products as operations that can be counted."""

    def missing(product):
        raise AttributeError

    monkeypatch.setattr(floors, "_by_onednn", missing)


def test_products_do_what_they_say(without_onednn):
    products = [Product(2, 3, 5, count=4), Product(7, 2, 3, batch=6), Product(3, 4, 5, transposed=True)]
    assert [each.flops for each in products] == [2 * 2 * 3 * 5 * 4, 2 * 7 * 2 * 3 * 6, 2 * 3 * 4 * 5]
    part = products_part(products, CPU)
    assert flops_of(part.run) == sum(each.flops for each in products)
    assert flops_of(part.empty) == 2 * (4 + 1 + 1)  # as many calls, each of one multiplication
    assert part.scale == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_read_heads": 2, "num_write_heads": 3, "num_shifts": 5},
        {"controller": partial(LSTMController, hidden_size=11, num_layers=2)},
        {"controller": partial(FeedForwardController, hidden_size=11, num_layers=2)},
    ],
    ids=["standard", "heads", "two layers", "feed-forward"],
)
def test_the_products_are_the_plain_loop_s(options):
    """Which also computes gradients of the inputs, for nobody: they stand in one tensor with what was read."""
    model = NTM(9, 8, num_slots=6, slot_size=4, **options)
    batch, time = 3, 5
    inputs = torch.randn(batch, time, 9)

    def train():
        with kernels.disabled():
            model(inputs)[0].sum().backward()

    sizes = sizes_of(model.cell)
    in_vain = 2 * batch * time * sizes.input * sizes.hidden * (4 if sizes.lstm else 1)
    plain = flops_of(train, aten.addmm, aten.mm)
    assert sum(each.flops for each in ntm_products(sizes, batch, time)) == plain - in_vain


def test_what_waits_for_the_step_before_is_one_product_a_step():
    products = ntm_products(sizes_of(NTM(9, 8).cell), batch=32, time=41)
    stepwise = {(each.rows, each.inner, each.columns) for each in products if each.count == 41}
    assert stepwise == {(32, 120, 400), (32, 400, 120), (32, 100, 92), (32, 92, 100)}
    assert {each.count for each in products} == {1, 41}
    gradients = {(each.rows, each.inner, each.columns) for each in products if each.transposed}
    assert gradients == {(400, 41 * 32, 129), (92, 41 * 32, 100), (8, 41 * 32, 120)}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_the_products_of_the_date_task_are_the_plain_network_s():
    """Which multiplies the encoder's first state, zeros, by the weights, and makes their gradient of it."""
    work = DateWork(batch=3, source=5, target=4, symbols=9, embedding=2, hidden=7)
    model = PlainSeq2Seq(work)
    source, target_in, _ = work.draw(CPU)
    with torch.backends.mkldnn.flags(enabled=False):
        plain = flops_of(lambda: model(source, target_in).sum().backward())
    in_vain = 2 * (2 * work.batch * work.hidden * 4 * work.hidden)
    assert sum(each.flops for each in work.products(work.batch)) == plain - in_vain


def test_passes_over_the_memory():
    passes = ntm_passes(sizes_of(NTM(9, 8, num_slots=7, slot_size=5).cell), batch=3, time=41)
    assert passes == Passes(reads=5 * 41, updates=2 * 41, floats=3 * 7 * 5, sequence_floats=7 * 5)
    assert passes.bytes == 41 * (5 + 2 * 2) * 3 * 7 * 5 * 4


def test_a_thread_has_its_share_of_the_batch_for_itself(monkeypatch):
    assert [floors.share(batch, threads) for batch, threads in ((256, 2), (1, 2), (7, 3), (32, 1))] == [128, 1, 3, 32]
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(floors, "_by_torch", lambda product, device: lambda: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(floors, "_by_onednn", lambda product: lambda: seen.append(torch.get_num_threads()))
    try:
        torch.set_num_threads(2)
        part = products_part([Product(2, 3, 4)], CPU)
        part.run()
        part.empty()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


class Touched(TorchDispatchMode):
    """Counts the numbers that operations go over."""

    def __init__(self):
        super().__init__()
        self.numbers = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket
        self.numbers[name] = self.numbers.get(name, 0) + args[0].numel()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("sequence", [35, BLOCK_FLOATS, 3 * BLOCK_FLOATS])
@pytest.mark.parametrize("batch", [1, 7])
def test_passes_go_over_as_many_numbers_as_they_say(sequence, batch):
    passes = Passes(reads=5, updates=2, floats=batch * sequence, sequence_floats=sequence)
    part = passes_part(passes, CPU)
    with Touched() as touched:
        part.run()
    assert touched.numbers[aten.sum] * part.scale == pytest.approx(passes.reads * passes.floats)
    assert touched.numbers[aten.neg_] * part.scale == pytest.approx(passes.updates * passes.floats)
    assert touched.numbers[aten.sum] / 5 >= sequence  # never less than one sequence's memory at a time
    with Touched() as nothing:
        part.empty()
    calls = 5 * max(1, round(batch * sequence / max(BLOCK_FLOATS, sequence)))
    assert nothing.numbers[aten.sum] == calls


def test_the_faster_library_is_taken(monkeypatch):
    called = []
    monkeypatch.setattr(floors, "_by_torch", lambda product, device: lambda: called.append("torch"))
    monkeypatch.setattr(floors, "_by_onednn", lambda product: lambda: called.append("onednn"))
    for slow, fast in (("torch", "onednn"), ("onednn", "torch")):
        seconds = {slow: 2.0, fast: 1.0}
        # The cost of a call counts for nothing: with it, the other one would be the faster.
        answers = iter([seconds["torch"], 0.5, seconds["onednn"] + 2, 2.5])
        monkeypatch.setattr(floors, "_least_seconds", lambda call, answers=answers: next(answers))
        called.clear()
        products_part([Product(2, 3, 4, count=2)], CPU).run()
        assert called == [fast] * 2


def test_onednn_multiplies_what_it_should():
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no such operation")
    assert floors._by_onednn(Product(3, 4, 5))().shape == (3, 5)
