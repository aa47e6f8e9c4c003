"""The two programs of a compiled step: one forwards and one backwards, without anything of autograd around them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from functorch.compile import min_cut_rematerialization_partition
from torch import fx
from torch._functorch.aot_autograd import aot_export_joint_simple
from torch._guards import TracingContext, tracing
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses import FakeTensor, FakeTensorMode

from memnet.compiling.graphs import Program, Replayed
from memnet.compiling.projections import Projection, take_out

_aten = torch.ops.aten


@dataclass(frozen=True)
class Product:
    """The gradient of an argument as left^T right; without ``right``, as the sum of left's rows.

    A parameter's is the sum over the steps, which is one product of all steps' rows.

    Attributes:
        argument: whose gradient.
        left: place among the results of the program.
        right: the same, or None.
    """

    argument: int
    left: int
    right: int | None


@dataclass(frozen=True)
class Backward:
    """A step backwards.

    Attributes:
        program: takes what the forward program has kept and the gradients of its results.
        num_arguments: how many it takes.
        kept: where in the program's arguments what was kept stands: place among the arguments, and among what was kept.
        given: of what was kept, that which the step was given: place among what was kept, and among its arguments.
        tangents: where the gradients of results stand, and of which result.
        gradients: place among the results of the program, and of which argument of the step it is the gradient.
        products: gradients of which the program gives the factors.
    """

    program: Replayed
    num_arguments: int
    kept: list[tuple[int, int]]
    given: dict[int, int]
    tangents: list[tuple[int, int]]
    gradients: list[tuple[int, int]]
    products: list[Product]


@dataclass(frozen=True)
class Programs:
    """A step.

    Attributes:
        forward: gives the results and after them what is kept for the step backwards.
        num_results: how many results there are.
        projections: what the step is given besides, at the end of its arguments (see ``take_out``).
        backward: None where nothing needs gradients.
    """

    forward: Replayed
    num_results: int
    projections: list[Projection]
    backward: Backward | None = field(default=None)


def build(graph: fx.GraphModule, training: bool) -> Programs:
    """Compiles a step.

    Args:
        graph: what ``torch.compile`` hands to a backend.
        training: whether arguments that require gradients get some.
    """
    fake_mode = next(x.fake_mode for x in _examples(graph) if isinstance(x, FakeTensor))
    graph = fx.GraphModule(graph, copy.deepcopy(graph.graph))  # torch.compile goes on with its own
    projections = take_out(graph, fake_mode, training)
    # The numbers that the plain loop would draw; and sizes that were right in the first step are so in all others.
    with tracing(TracingContext(fake_mode)), config.patch(fallback_random=True, size_asserts=False):
        return _build(graph, projections, training, fake_mode)


def _examples(graph: fx.GraphModule) -> list[Any]:
    """Not the arguments that torch.compile hands over besides: their sizes are no symbols."""
    return [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]


def _build(graph: fx.GraphModule, projections: list[Projection], training: bool, fake_mode: FakeTensorMode) -> Programs:
    examples = _examples(graph)
    decompositions = dict(select_decomp_table())
    decompositions.pop(_aten.mm.default, None)  # kept whole, for the products over many steps
    with torch.set_grad_enabled(training), fake_mode:
        results = graph(*examples)
    joint: Any = aot_export_joint_simple(
        lambda *x: tuple(graph(*x)), tuple(examples), trace_joint=training, decompositions=decompositions
    )
    count = len(results)
    if not training:
        _spare_copies(joint, count)
        return Programs(_compile(joint, is_inference=True), count, projections)
    forward, backward = min_cut_rematerialization_partition(joint, examples, num_fwd_outputs=count)
    _spare_copies(forward, count)
    kept = [node.name if isinstance(node, fx.Node) else None for node in _outputs(forward)[count:]]
    products = _defer_products(backward)
    names = [node.name for node in backward.graph.find_nodes(op="placeholder")]
    needing = [number for number, result in enumerate(results) if result.requires_grad]
    tangents = [place for place, name in enumerate(names) if name not in kept]
    assert len(tangents) == len(needing)
    gradients = _outputs(backward)[: len(examples)]
    place_of = {node.name: place for place, node in enumerate(forward.graph.find_nodes(op="placeholder"))}
    return Programs(
        _compile(forward),
        count,
        projections,
        Backward(
            _compile(backward, is_backward=True),
            len(names),
            [(place, kept.index(name)) for place, name in enumerate(names) if name in kept],
            {number: place_of[name] for number, name in enumerate(kept) if name in place_of},
            list(zip(tangents, needing, strict=True)),
            [(place, place) for place, node in enumerate(gradients) if node is not None],
            products,
        ),
    )


def _compile(graph: fx.GraphModule, **options: bool) -> Replayed:
    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    results = [node.meta["val"] if isinstance(node, fx.Node) else None for node in _outputs(graph)]
    return Replayed(_Tidy(compile_fx_inner(graph, examples, **options), results))  # type: ignore[arg-type]


class _Tidy:
    """A program whose results lie in memory as the graph says, and as the program that takes them was made for.

    The compiler may leave a result that is a view of something where that is a part of something longer. Nobody would
    notice: programs do not look at strides.
    """

    def __init__(self, program: Program, examples: Sequence[Any]):
        self._program = program
        self._examples = examples
        self._untidy: list[tuple[int, list[int]]] | None = None

    def __call__(self, arguments: list[Any]) -> Sequence[Any]:
        results = self._program(arguments)
        if self._untidy is None:  # of one program always the same results
            self._untidy = [
                (place, _slowest_axis_first(example))
                for place, (result, example) in enumerate(zip(results, self._examples, strict=True))
                if isinstance(result, torch.Tensor) and _is_dense(example) and not _is_dense(result)
            ]
        if not self._untidy:
            return results
        tidy = list(results)
        for place, axes in self._untidy:
            back = [axes.index(axis) for axis in range(len(axes))]
            tidy[place] = tidy[place].permute(axes).contiguous().permute(back)
        return tidy


def _is_dense(x: torch.Tensor) -> bool:
    """Whether nothing lies between its numbers, in whatever order of the axes."""
    size = 1
    for stride, length in sorted(zip(x.stride(), x.shape, strict=True)):
        if length != 1:
            if stride != size:
                return False
            size *= length
    return True


def _slowest_axis_first(x: torch.Tensor) -> list[int]:
    return [int(axis) for axis in sorted(range(x.dim()), key=lambda axis: x.stride(axis), reverse=True)]


def _outputs(graph: fx.GraphModule) -> list[Any]:
    (output,) = graph.graph.find_nodes(op="output")
    return list(output.args[0])


def _spare_copies(graph: fx.GraphModule, count: int) -> None:
    """Hands out what was computed instead of its copy, among the first results; nothing is ever written to them.

    The copies are there because the compiler refuses results that are an argument or a part of one.
    """
    (output,) = graph.graph.find_nodes(op="output")
    outputs = list(output.args[0])
    given = {_storage(node) for node in graph.graph.find_nodes(op="placeholder")}
    for place, node in enumerate(outputs[:count]):
        if isinstance(node, fx.Node) and node.target is _aten.clone.default:
            source: Any = node.args[0]
            is_like_it = source.meta["val"].stride() == node.meta["val"].stride()
            if is_like_it and _storage(source) not in given:
                outputs[place] = source
    output.args = (tuple(outputs),)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _storage(node: fx.Node) -> int | None:
    value = node.meta["val"]
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _defer_products(graph: fx.GraphModule) -> list[Product]:
    """Hands out the factors of weights' gradients instead of the gradients."""
    (output,) = graph.graph.find_nodes(op="output")
    outputs = list(output.args[0])
    found: list[Product] = []
    place_of: dict[fx.Node, int] = {}

    def hand_out(node: fx.Node) -> int:
        if node not in place_of:
            place_of[node] = len(outputs)
            outputs.append(node)
        return place_of[node]

    for argument, node in enumerate(outputs[:]):
        factors = _factors(node) if isinstance(node, fx.Node) else None
        if factors is not None:
            left, right = factors
            found.append(Product(argument, hand_out(left), None if right is None else hand_out(right)))
            outputs[argument] = None
    output.args = (tuple(outputs),)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return found


def _factors(node: Any) -> tuple[fx.Node, fx.Node | None] | None:
    """left and right of a node left^T right; left alone of a sum over rows."""
    transposed = False
    while _is_transpose(node):
        transposed, node = not transposed, node.args[0]
    if node.target is _aten.mm.default and _is_transpose(node.args[0]):
        left, right = node.args[0].args[0], node.args[1]
        return (right, left) if transposed else (left, right)
    while node.target in (_aten.view.default, _aten.reshape.default, _aten.squeeze.dim):
        node = node.args[0]
    if node.target is _aten.sum.dim_IntList and node.args[1] == [0] and node.args[0].meta["val"].dim() == 2:
        return node.args[0], None
    return None


def _is_transpose(node: Any) -> bool:
    return node.target in (_aten.permute.default, _aten.t.default, _aten.transpose.int) and (
        node.meta["val"].dim() == 2
    )
