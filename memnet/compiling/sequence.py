"""A compiled step over a whole sequence, as one node of autograd."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.cells import Cell
from memnet.compiling.capture import Captured, Layout, Recipe
from memnet.compiling.programs import Backward, Product

ROWS_AT_ONCE = 2048
"""At least so many rows, a batch for each step, go into one product for a weight's gradient."""


class Call(NamedTuple):
    """What belongs to one sequence, besides its tensors.

    Attributes:
        captured: the cell's step.
        cell: the cell.
        layout: of the state.
        alive: for each step, which sequences have not ended; None while none has.
    """

    captured: Captured
    cell: Cell
    layout: Layout
    alive: Sequence[Tensor | None]


def run_sequence(
    call: Call, inputs: Tensor, tensors: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    """Outputs and the state's tensors at the end.

    Args:
        call: what it is about.
        inputs: ``(batch, time, inp)``.
        tensors: of the state at the beginning.
        parameters: the cell's.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (inputs, *tensors, *parameters)):
        outputs, *end = _Sequence.apply(call, inputs, len(tensors), *tensors, *parameters)
        return outputs, end
    with torch.no_grad():
        outputs, end, _, _ = _forward(call, inputs, tensors, parameters, training=False)
    return outputs, end


def _forward(
    call: Call, inputs: Tensor, tensors: Sequence[Tensor], parameters: Sequence[Tensor], training: bool
) -> tuple[Tensor, list[Tensor], list[list[Any]], Recipe]:
    """Outputs, the state's tensors at the end, what each step keeps for the backward pass, and the recipe."""
    xs = inputs.detach().transpose(0, 1).contiguous().unbind(0)
    everyone = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
    keeps = [everyone if keep is None else keep for keep in call.alive]
    # Each tensor an object of its own, so that two that are the same now are not taken for one.
    state = [x.detach().contiguous().detach() for x in tensors]
    with torch.set_grad_enabled(training):
        x = xs[0].detach().requires_grad_(training)  # always: one program for both kinds of input
        first = [each.detach().requires_grad_(training and each.is_floating_point()) for each in state]
        recipe, results = call.captured.first_step(call.cell, x, keeps[0], first, call.layout, parameters)
    program, count = recipe.programs.forward, recipe.programs.num_results
    outputs, kept = [], []
    for time, (x, keep) in enumerate(zip(xs, keeps, strict=True)):
        if time:
            arguments = list(recipe.arguments)
            if recipe.x is not None:
                arguments[recipe.x] = x
            if recipe.keep is not None:
                arguments[recipe.keep] = keep
            for place, number in recipe.state_in:
                arguments[place] = state[number]
            results = program(arguments)
        outputs.append(results[recipe.output])
        kept.append(list(results[count:]))
        for number, result in recipe.state_out:
            state[number] = results[result]
    return torch.stack(outputs, 1), state, kept, recipe


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, inputs: Tensor, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, parameters = tensors[:count], tensors[count:]
        outputs, end, kept, ctx.recipe = _forward(call, inputs, state, parameters, training=True)
        ctx.set_materialize_grads(False)
        ctx.numbers = [None if isinstance(x, Tensor) else x for x in kept[0]]
        ctx.places = [place for place, x in enumerate(kept[0]) if isinstance(x, Tensor)]
        ctx.time, ctx.forms = len(kept), [_form(x) for x in (outputs[:, 0], *end)]
        # The parameters are there so that changed ones are noticed.
        ctx.save_for_backward(*parameters, *(step[place] for step in kept for place in ctx.places))
        ctx.mark_non_differentiable(*(x for x in end if not x.is_floating_point()))
        return outputs, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        recipe: Recipe = ctx.recipe
        program = recipe.programs.backward
        assert program is not None
        saved, width, time = ctx.saved_tensors, len(ctx.places), ctx.time
        first_kept = len(saved) - width * time
        parameters = saved[:first_kept]
        sums = _Sums(program, {place: parameters[number].shape for place, number in recipe.parameters.items()})
        no_output, *no_state = (torch.zeros(shape, **kind) for shape, kind in ctx.forms)
        d_steps = None if d_outputs is None else d_outputs.transpose(0, 1).contiguous().unbind(0)
        d_state: list[Tensor | None] = [None if d is None else d.contiguous() for d in d_end]
        d_inputs: list[Tensor] = []
        owner = {result: number for number, result in recipe.state_out}
        leaf_of = dict(recipe.state_in)
        at_once = [product for product in program.products if product.argument not in recipe.parameters]
        changing = {number for number, _ in recipe.state_out}
        for step in reversed(range(time)):
            kept = list(ctx.numbers)
            begin = first_kept + step * width
            for place, tensor in zip(ctx.places, saved[begin : begin + width], strict=True):
                kept[place] = tensor
            arguments: list[Any] = [None] * program.num_arguments
            for place, number in program.kept:
                arguments[place] = kept[number]
            for place, result in program.tangents:
                if result == recipe.output:
                    arguments[place] = no_output if d_steps is None else d_steps[step]
                else:
                    number = owner[result]
                    d = d_state[number]
                    arguments[place] = no_state[number] if d is None else d
            results = program.program(arguments)
            before: list[Tensor | None] = [None if n in changing else d for n, d in enumerate(d_state)]
            gradients = [(argument, results[place]) for place, argument in program.gradients]
            for argument, gradient in gradients + [(each.argument, _now(each, results)) for each in at_once]:
                if argument in leaf_of:
                    number, d = leaf_of[argument], before[leaf_of[argument]]
                    gradient = gradient.reshape(no_state[number].shape)
                    before[number] = gradient if d is None else d + gradient
                elif argument == recipe.x and ctx.needs_input_grad[1]:
                    d_inputs.append(gradient.reshape(len(no_output), -1))
            d_state = before
            sums.add(results)
        found = sums.total()
        d_parameters: list[Tensor | None] = [None] * len(parameters)
        for place, number in recipe.parameters.items():
            d_parameters[number] = found.get(place)
        wanted = ctx.needs_input_grad
        d_all = [*d_state, *d_parameters]
        return (
            None,
            torch.stack(d_inputs[::-1], 1) if d_inputs else None,
            None,
            *(d if want else None for d, want in zip(d_all, wanted[3:], strict=True)),
        )


def _now(product: Product, results: Sequence[Any]) -> Tensor:
    """What is no parameter's gradient is needed in the step before."""
    left = results[product.left]
    return left.sum(0) if product.right is None else left.t() @ results[product.right]


def _form(x: Tensor) -> tuple[torch.Size, dict[str, Any]]:
    return x.shape, {"dtype": x.dtype, "device": x.device}


class _Sums:
    """The parameters' gradients, over the steps.

    Args:
        program: a step backwards.
        shapes: of the parameters, by their places among a step's arguments.
    """

    def __init__(self, program: Backward, shapes: dict[int, torch.Size]):
        self._products = [product for product in program.products if product.argument in shapes]
        self._single = [(place, argument) for place, argument in program.gradients if argument in shapes]
        self._shapes = shapes
        self._totals: dict[int, Tensor] = {}
        self._waiting: dict[int, list[Tensor]] = {
            place: [] for product in self._products for place in (product.left, product.right) if place is not None
        }
        self._rows = 0

    def add(self, results: Sequence[Any]) -> None:
        """Adds what a step gave."""
        if self._single:
            singles = {argument: results[place] for place, argument in self._single}
            if self._single[0][1] in self._totals:
                torch._foreach_add_([self._totals[argument] for argument in singles], list(singles.values()))
            else:
                self._totals |= {argument: single.clone() for argument, single in singles.items()}
        if self._waiting:
            for place, waiting in self._waiting.items():
                waiting.append(results[place])
            self._rows += len(results[self._products[0].left])
            if self._rows >= ROWS_AT_ONCE:
                self._multiply()

    def total(self) -> dict[int, Tensor]:
        """The gradients, by the parameters' places."""
        if self._rows:
            self._multiply()
        return self._totals

    def _multiply(self) -> None:
        factors = {place: torch.cat(waiting) for place, waiting in self._waiting.items()}
        for product in self._products:
            self._add_product(product, factors)
        for waiting in self._waiting.values():
            waiting.clear()
        self._rows = 0

    def _add_product(self, product: Product, factors: dict[int, Tensor]) -> None:
        left, place = factors[product.left], product.argument
        if product.right is None:
            part = left.sum(0).view(self._shapes[place])
        else:
            right = factors[product.right]
            if place in self._totals:
                self._totals[place].addmm_(left.t(), right)
                return
            part = left.t() @ right
        self._totals[place] = self._totals[place] + part if place in self._totals else part
