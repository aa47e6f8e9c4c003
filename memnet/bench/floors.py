"""The least time that a piece of work needs on this machine: its matrix products and its passes over memory, alone.

A floor has to be one that no implementation can go below except with a better matrix product, and that a good one can
come near. So it is made of two parts, measured in the same turns as the work itself:

Matrix products
    Every product the algorithm cannot do without, forwards and backwards, in its real shape, in as few calls as the
    dependencies allow. What waits for the step before is one product for every step (a controller's and the heads'
    maps, and their transposes on the way back); what does not wait is one product for all steps (the inputs' and the
    outputs' maps, and every weight's gradient). On a CPU each is done by the faster of the two libraries in torch, the
    one behind ``torch.mm`` or oneDNN with weights packed beforehand: on some processors they differ by a factor of two.
Memory passes
    Every time that the contents of the memory have to travel between cache and processor: ``torch.sum`` for a pass that
    reads and ``Tensor.neg_`` for one that reads and writes, the fastest of their kind in torch. They go over a block
    that lies in the second-level cache, or over one sequence's memory where that is larger, as all of it has to be seen
    before a softmax over it is known; the bytes that the work needs are scaled from there.

From both, the time that the same calls take on tensors of one element is taken off: starting an operation is what the
fast ways avoid, so it has no place in a floor. On a GPU the calls are recorded once as a CUDA graph instead. The floor
of several threads is that of one with its share of the batch: sequences need nothing of one another.

Left out are the exponentials, the weights over slots (smaller than the memory by its width) and the optimiser: nothing
comes all the way down to this floor.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import NamedTuple

import torch

from memnet.kernels.ntm_cell import CellSizes

Call = Callable[[], object]

BLOCK_FLOATS = 2**16
"""Of the block that passes go over: 256 KiB, a part of any second-level cache of today."""

CLEARLY = 0.7
"""oneDNN is taken where it needs less than this part of the other's time: its calls cost more, which blurs the rest."""

READ_PASSES, UPDATE_PASSES = 5, 2
"""Passes over the memory for one step of the Neural Turing Machine, for any number of heads, as heads share a pass.

Forwards, the write heads compare with the memory M' as it was (read), the memory is written while the read heads
compare with what it becomes, M (update), and the read heads read it (read): each waits for a softmax over all slots.
Backwards there are gradients through the reading (read), through the read heads' similarity and the writing together
with the memory's own gradient (read, and update of that), and through the write heads' similarity (read); only M' is
read, as M follows from it slot by slot, and gradients of rank one wait for the next update. That M' is at hand costs no
pass: the forward pass may write to a new place each time.
"""


@dataclass(frozen=True)
class Part:
    """What one part of a floor does.

    Attributes:
        name: what it is called in tables.
        run: the operations.
        empty: as many operations with nothing to do.
        scale: how many times the operations stand for.
    """

    name: str
    run: Call
    empty: Call
    scale: float = 1.0


@dataclass(frozen=True)
class Product:
    """Products of matrices of the same shapes: (rows x inner) times (inner x columns).

    Attributes:
        rows: of the left matrix.
        inner: columns of the left and rows of the right matrix.
        columns: of the right matrix.
        count: how many one after the other.
        batch: how many at once, each of its own matrices.
        transposed: whether the left matrix is stored as (inner x rows), as a step's gradients are when those of the
            weights are made.
    """

    rows: int
    inner: int
    columns: int
    count: int = 1
    batch: int = 1
    transposed: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions of all of them."""
        return 2 * self.rows * self.inner * self.columns * self.count * self.batch


class Passes(NamedTuple):
    """Passes over the memories of a batch.

    Attributes:
        reads: how many that read.
        updates: how many that read and write.
        floats: numbers that one pass goes over.
        sequence_floats: numbers of a single sequence's memory.
    """

    reads: int
    updates: int
    floats: int
    sequence_floats: int

    @property
    def bytes(self) -> int:
        """What travels in all of them; an update goes both ways."""
        return 4 * self.floats * (self.reads + 2 * self.updates)


def share(batch: int, threads: int) -> int:
    """How many sequences of a batch the thread that has most of them has.

    Args:
        batch: how many there are.
        threads: how many share them.
    """
    return -(-batch // threads)


def linear(rows: int, inner: int, columns: int, count: int = 1, wants_input_gradient: bool = True) -> list[Product]:
    """A linear map in ``count`` steps with everything that backpropagation needs of it.

    Args:
        rows: batch size of a step.
        inner: width of the input.
        columns: width of the output.
        count: how many steps depend on one another. The weights' gradient is one product over all of them.
        wants_input_gradient: whether there is somebody to hand a gradient on to.
    """
    products = [Product(rows, inner, columns, count), Product(columns, rows * count, inner, transposed=True)]
    return [*products, Product(rows, columns, inner, count)] if wants_input_gradient else products


def lstm(batch: int, time: int, input_size: int, hidden_size: int, from_zeros: bool) -> list[Product]:
    """A layer of an LSTM over all steps of a sequence, with everything that backpropagation needs of it.

    Args:
        batch: how many sequences.
        time: how many steps.
        input_size: width of the input, all of which is known beforehand and wants a gradient.
        hidden_size: width of the layer.
        from_zeros: whether it starts from zeros, so that the first step's recurrent products are nothing.
    """
    gates = 4 * hidden_size
    return [*linear(batch * time, input_size, gates), *linear(batch, hidden_size, gates, time - from_zeros)]


def attention(batch: int, queries: int, slots: int, width: int) -> list[Product]:
    """Dot-product attention of known queries over a memory whose keys are its values: scores and reads, and backwards.

    Args:
        batch: how many memories.
        queries: how many ask.
        slots: of a memory.
        width: of a slot.
    """
    scores = [Product(queries, width, slots, batch=batch), Product(queries, slots, width, batch=batch)]
    reads = [Product(queries, slots, width, batch=batch), Product(queries, width, slots, batch=batch)]
    # Backwards, keys and values get one gradient each, in the shape of the memory.
    return [*scores, *reads, *[Product(slots, queries, width, batch=batch, transposed=True)] * 2]


def ntm_products(sizes: CellSizes, batch: int, time: int) -> list[Product]:
    """The matrix products of a training step of a standard Neural Turing Machine.

    Args:
        sizes: of its cell.
        batch: how many sequences.
        time: how many steps.
    """
    reads = sizes.read_heads * sizes.width
    out = (4 if sizes.lstm else 1) * sizes.hidden
    interface = sizes.parameter_shapes()[-4][0]
    # The inputs' part of the first layer waits for nothing; its weights' gradient comes with that of the other part.
    products = [Product(batch * time, sizes.input, out)]
    for layer in range(sizes.layers):
        below, known = (reads, sizes.input) if layer == 0 else (sizes.hidden, 0)
        fed = below + (sizes.hidden if sizes.lstm else 0)
        forward, _, backward = linear(batch, fed, out, time)
        products += [forward, backward, Product(out, batch * time, known + fed, transposed=True)]
    products += linear(batch, sizes.hidden, interface, time)
    products += linear(batch * time, sizes.hidden + reads, sizes.output)
    return products


def ntm_passes(sizes: CellSizes, batch: int, time: int) -> Passes:
    """The passes over memory of a training step of a standard Neural Turing Machine.

    Args:
        sizes: of its cell.
        batch: how many sequences.
        time: how many steps.
    """
    floats = sizes.slots * sizes.width
    return Passes(READ_PASSES * time, UPDATE_PASSES * time, batch * floats, floats)


def products_part(products: Sequence[Product], device: torch.device) -> Part:
    """Products as a part of a floor.

    Args:
        products: which.
        device: where.
    """
    chosen: list[tuple[Call, Call]] = []
    _in_one_thread(lambda: chosen.extend(_fastest(product, device) for product in products))
    counts = [product.count for product in products]
    runs = list(zip(counts, [full for full, _ in chosen], strict=True))
    empties = list(zip(counts, [empty for _, empty in chosen], strict=True))
    return _part("matrix products", partial(_repeat, runs), partial(_repeat, empties), 1.0, device)


def passes_part(passes: Passes, device: torch.device) -> Part:
    """Passes as a part of a floor.

    Args:
        passes: which.
        device: where. On a GPU they go over the whole batch's memory at once.
    """
    block = passes.floats if device.type == "cuda" else max(passes.sequence_floats, BLOCK_FLOATS)
    times = max(1, round(passes.floats / block))
    calls = (passes.reads * times, passes.updates * times)
    scale = passes.floats / (block * times)
    return _part("memory passes", _pass_over(block, *calls, device), _pass_over(1, *calls, device), scale, device)


def _part(name: str, run: Call, empty: Call, scale: float, device: torch.device) -> Part:
    if device.type != "cuda":
        return Part(name, partial(_in_one_thread, run), partial(_in_one_thread, empty), scale)
    run()  # libraries set themselves up in the first call, which cannot be recorded
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return Part(name, graph.replay, _do_nothing, scale)


def _in_one_thread(run: Call) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run()
    finally:
        torch.set_num_threads(before)


def _repeat(calls: Sequence[tuple[int, Call]]) -> None:
    for count, call in calls:
        for _ in range(count):
            call()


def _fastest(product: Product, device: torch.device) -> tuple[Call, Call]:
    """One of the product's multiplications and the same call with nothing to do, by the library that is fastest."""
    nothing = Product(1, 1, 1)
    made = [(_by_torch(product, device), _by_torch(nothing, device))]
    if device.type == "cpu" and product.batch == 1:
        # An operation of torch's own compiler: it need not be there in every version.
        with contextlib.suppress(AttributeError, RuntimeError):
            made.append((_by_onednn(product), _by_onednn(nothing)))
    if len(made) == 1:
        return made[0]
    by_torch, by_onednn = (_least_seconds(full) - _least_seconds(empty) for full, empty in made)
    return made[1] if by_onednn < CLEARLY * by_torch else made[0]


def _by_torch(product: Product, device: torch.device) -> Call:
    rows, inner, batch = product.rows, product.inner, product.batch
    left = torch.ones((batch, inner, rows) if product.transposed else (batch, rows, inner), device=device)
    left = left.transpose(1, 2) if product.transposed else left
    right = torch.ones(batch, inner, product.columns, device=device)
    out = torch.empty(batch, rows, product.columns, device=device)
    if batch == 1:
        return partial(torch.mm, left[0], right[0], out=out[0])
    return partial(torch.bmm, left, right, out=out)


def _by_onednn(product: Product) -> Call:
    left, weight = torch.ones(product.rows, product.inner), torch.ones(product.columns, product.inner)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, product.rows)
    call = partial(torch.ops.mkldnn._linear_pointwise.default, left, packed, None, "none", [], "")
    call()
    return call


def _least_seconds(call: Call, times: int = 15) -> float:
    measured = []
    for _ in range(times):
        begin = perf_counter()
        call()
        measured.append(perf_counter() - begin)
    return min(measured)


def _pass_over(floats: int, reads: int, updates: int, device: torch.device) -> Call:
    block, total = torch.ones(floats, device=device), torch.zeros((), device=device)

    def run() -> None:
        for _ in range(reads):
            torch.sum(block, 0, out=total)
        for _ in range(updates):
            block.neg_()

    return run


def _do_nothing() -> None:
    pass
