"""Products with a step's input, which wait for no other step, made for all steps at once.

A controller multiplies its input and what was read with one matrix. What was read is known when its step comes; the
input is known from the beginning. So the columns of the matrix that belong to the input are taken out of the step,
which is given their product instead: one product over all steps in place of one for each, forwards and backwards.
"""

from collections.abc import Sequence
from operator import getitem
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.nn import functional as F

_INPUT = "L_x_"
"""What ``torch.compile`` calls the argument ``x`` of a step."""


LEAST_WIDTH = 64
"""Of narrower inputs the product takes less time than handing it over to the steps: with 9 channels a training step of
a Neural Turing Machine took 1.7% longer.
"""


class Projection(NamedTuple):
    """A product that was taken out of a step; places are among the arguments of the program forwards.

    Attributes:
        x: place of the step's input.
        weight: place of the matrix, ``(out, columns)``.
        begin: first of the columns that belong to the input; they are the matrix's first or its last ones.
        end: the one after their last.
        projected: place of the product, ``(batch, out)``, which the step is given.
        rest: place of the other columns; None if there are none.
    """

    x: int
    weight: int
    begin: int
    end: int
    projected: int
    rest: int | None

    def of_input(self, weight: Tensor) -> Tensor:
        """The columns of the matrix, or of its gradient, that belong to the input."""
        return weight[:, self.begin : self.end]

    def of_rest(self, weight: Tensor) -> Tensor:
        """The others."""
        return weight[:, self.end :] if self.begin == 0 else weight[:, : self.begin]

    def arguments(self, arguments: Sequence[Any]) -> list[Tensor]:
        """What a step is given besides its own arguments, as tensors or as what stands for them."""
        x, weight = arguments[self.x], arguments[self.weight].detach()
        found = [F.linear(x.detach(), self.of_input(weight))]
        return found if self.rest is None else [*found, self.of_rest(weight)]  # a part, which stays where it is


def take_out(graph: fx.GraphModule, fake_mode: FakeTensorMode, training: bool) -> list[Projection]:
    """Changes a step so that it is given what it has multiplied its input by.

    Args:
        graph: the step, what ``torch.compile`` hands to a backend.
        fake_mode: of the examples in it.
        training: whether the step will be taken backwards, too.

    Returns:
        For each product what was taken out. The graph has their arguments at the end of its own, in this order.
    """
    placeholders = graph.graph.find_nodes(op="placeholder")
    place_of = {node: place for place, node in enumerate(placeholders)}
    x = next((node for node in placeholders if node.target == _INPUT), None)
    found: list[Projection] = []
    width = 0 if x is None or _example(x).dim() != 2 else _example(x).shape[1]
    if x is None or not isinstance(width, int) or width < LEAST_WIDTH:
        return found
    arguments = [_example(node) for node in placeholders]
    last = placeholders[-1]

    def add_placeholder(name: str, example: Tensor, requires_grad: bool) -> fx.Node:
        nonlocal last
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(name)
        last.meta["example_value"] = example.detach().requires_grad_(requires_grad)
        return last

    for node in [*graph.graph.find_nodes(op="call_function", target=F.linear), *_lstm_cells(graph)]:
        weight = node.args[2] if node.target is torch.lstm_cell else node.args[1]
        columns = _columns(node.args[0], x)
        if columns is None or weight not in place_of or not isinstance(_example(weight), nn.Parameter):
            continue
        begin, others = columns
        end = begin + width
        place = len(placeholders) + sum(1 if each.rest is None else 2 for each in found)
        rest = place + 1 if others else None
        found.append(Projection(place_of[x], place_of[weight], begin, end, place, rest))
        with fake_mode, torch.no_grad():
            examples = found[-1].arguments(arguments)
        name = f"projected_{len(found)}"
        projected = add_placeholder(name, examples[0], training)
        if others:
            wanted = training and _example(weight).requires_grad
            others = [*others, add_placeholder(f"{name}_rest", examples[1], wanted)]
        _replace(graph.graph, node, projected, others)
    if found:
        graph.graph.lint()
        graph.recompile()
    return found


def _example(node: Any) -> Any:
    return node.meta["example_value"]


def _lstm_cells(graph: fx.GraphModule) -> list[fx.Node]:
    """Those whose state is not hidden in one tensor."""
    nodes = graph.graph.find_nodes(op="call_function", target=torch.lstm_cell)
    return [node for node in nodes if isinstance(node.args[1], (tuple, list)) and len(node.args) == 6]


def _columns(given: Any, x: fx.Node) -> tuple[int, list[fx.Node]] | None:
    """Where the input begins in what a matrix is multiplied by, and what stands beside it; None if it is not there."""
    if given is x:
        return 0, []
    if not isinstance(given, fx.Node) or given.target is not torch.cat or len(given.args) != 2 or given.kwargs:
        return None
    parts: Any
    parts, axis = given.args
    if axis not in (-1, 1) or not isinstance(parts, (tuple, list)) or list(parts).count(x) != 1:
        return None
    others = [part for part in parts if part is not x]
    if not all(isinstance(_example(part), FakeTensor) and _example(part).dim() == 2 for part in others):
        return None
    if parts[0] is x:
        return 0, others
    widths = [_example(part).shape[1] for part in others]
    return (sum(widths), others) if parts[-1] is x and all(isinstance(width, int) for width in widths) else None


def _replace(graph: fx.Graph, node: fx.Node, projected: fx.Node, others: Sequence[fx.Node]) -> None:
    """The node by the sum of what was projected and the product of the others, of which the last is their matrix."""
    is_lstm = node.target is torch.lstm_cell
    bias = node.args[4] if is_lstm else node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    with graph.inserting_before(node):
        total = projected
        if others:
            *parts, matrix = others
            beside = parts[0] if len(parts) == 1 else graph.call_function(torch.cat, (list(parts), -1))
            product = graph.call_function(F.linear, (beside, matrix, bias))
            total = graph.call_function(torch.add, (product, projected))
        elif bias is not None:
            total = graph.call_function(torch.add, (projected, bias))
        if not is_lstm:
            node.replace_all_uses_with(total)
        else:
            state: Any = node.args[1]
            recurrent = graph.call_function(F.linear, (state[0], node.args[3], node.args[5]))
            results = _lstm_step(graph, graph.call_function(torch.add, (total, recurrent)), state[1])
            for user in list(node.users):
                user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
                graph.erase_node(user)
    given = node.args[0]
    graph.erase_node(node)
    if isinstance(given, fx.Node) and given.op != "placeholder" and not given.users:
        graph.erase_node(given)


def _lstm_step(graph: fx.Graph, gates: fx.Node, cell: Any) -> tuple[fx.Node, fx.Node]:
    """Hidden and cell state after a step (Hochreiter and Schmidhuber 1997; in the order of ``torch.nn.LSTMCell``)."""

    def call(function: Any, *arguments: Any) -> fx.Node:
        return graph.call_function(function, arguments)

    parts = call(torch.chunk, gates, 4, 1)
    enter, keep, new, leave = (call(getitem, parts, number) for number in range(4))
    added = call(torch.mul, call(torch.sigmoid, enter), call(torch.tanh, new))
    after = call(torch.add, call(torch.mul, call(torch.sigmoid, keep), cell), added)
    return call(torch.mul, call(torch.sigmoid, leave), call(torch.tanh, after)), after
