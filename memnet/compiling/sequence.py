"""A compiled step over a whole sequence, as one node of autograd."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.cells import Cell
from memnet.compiling.capture import Captured, Layout, Recipe
from memnet.compiling.programs import Backward, Product

ROWS_AT_ONCE = 512
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


class _Part(NamedTuple):
    """Steps of one kind, one after the other.

    Attributes:
        recipe: of these steps.
        num_steps: how many.
        template: the arguments of a step backwards, where they are the same for all: numbers, as of sizes.
        constants: tensors among them that are the same for all: place, number of the argument of a step forwards.
        changing: the places of those that each step has kept for itself.
    """

    recipe: Recipe
    num_steps: int
    template: list[Any]
    constants: list[tuple[int, int]]
    changing: list[int]


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
) -> tuple[Tensor, list[Tensor], list[_Part], list[Tensor]]:
    """Outputs, the state's tensors at the end, the parts of the sequence, and what its steps keep, step by step."""
    xs = inputs.detach().transpose(0, 1).contiguous().unbind(0)
    state = [x.detach().contiguous() for x in tensors]
    outputs: list[Tensor] = []
    parts: list[_Part] = []
    kept: list[Tensor] = []
    # Full batches have a program of their own, which does not look who has ended.
    for _, group in groupby(zip(xs, call.alive, strict=True), key=lambda step: step[1] is None):
        (x, keep), *steps = group
        with torch.set_grad_enabled(training):
            # Each tensor an object of its own, so that two that are the same now are not taken for one.
            first = [_fresh(each).requires_grad_(training and each.is_floating_point()) for each in state]
            x = x.detach().requires_grad_(training)  # always: one program for both kinds of input
            recipe, results = call.captured.first_step(call.cell, x, keep, first, call.layout, parameters)
        part, keeping = _begin_part(recipe, results, 1 + len(steps))
        parts.append(part)
        program, template, constants = recipe.programs.forward.again, recipe.arguments, recipe.constants
        _advance(recipe, results, state)
        outputs.append(results[recipe.output])
        kept.extend([results[place] for place in keeping])
        for x, keep in steps:
            arguments = template.copy()
            if recipe.x is not None:
                arguments[recipe.x] = x
            if recipe.keep is not None:
                arguments[recipe.keep] = keep
            for place, number in recipe.state_in:
                arguments[place] = state[number]
            results = program(arguments, constants)
            _advance(recipe, results, state)
            outputs.append(results[recipe.output])
            kept.extend([results[place] for place in keeping])
    return torch.stack(outputs, 1), state, parts, kept


def _fresh(x: Tensor) -> Tensor:
    """An object of its own; strides of axes of size 1, which may be any, as usual, for else it is compiled again."""
    return x.detach().view(-1).view(x.shape)


def _advance(recipe: Recipe, results: Sequence[Any], state: list[Tensor]) -> None:
    for number, result in recipe.state_out:
        state[number] = results[result]


def _begin_part(recipe: Recipe, results: Sequence[Any], num_steps: int) -> tuple[_Part, list[int]]:
    """And the places among the results of what each step keeps for itself."""
    part, keeping = _Part(recipe, num_steps, [], [], []), []
    count, program, constants = recipe.programs.num_results, recipe.programs.backward, recipe.constants
    if program is not None:
        part.template.extend([None] * program.num_arguments)
        for place, number in program.kept:
            value, argument = results[count + number], program.given.get(number)
            if not isinstance(value, Tensor):
                part.template[place] = value
            elif argument in constants:
                part.constants.append((place, argument))
            else:
                part.changing.append(place)
                keeping.append(count + number)
    return part, keeping


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, inputs: Tensor, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, parameters = tensors[:count], tensors[count:]
        outputs, end, ctx.parts, kept = _forward(call, inputs, state, parameters, training=True)
        ctx.set_materialize_grads(False)
        ctx.forms = [_form(x) for x in (outputs[:, 0], *end)]
        constants = [part.recipe.arguments[argument] for part in ctx.parts for _, argument in part.constants]
        # The parameters are there so that changed ones are noticed.
        ctx.save_for_backward(*parameters, *constants, *kept)
        ctx.num_parameters = len(parameters)
        # Each an object of its own: one result may be two tensors of the state.
        end = [x.detach() for x in end]
        ctx.mark_non_differentiable(*(x for x in end if not x.is_floating_point()))
        return outputs, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, begin = ctx.saved_tensors, ctx.num_parameters
        parameters = saved[:begin]
        templates = []
        for part in ctx.parts:
            template = part.template.copy()
            for place, _ in part.constants:
                template[place], begin = saved[begin], begin + 1
            templates.append(template)
        end, time = len(saved), sum(part.num_steps for part in ctx.parts)
        d_steps = None if d_outputs is None else d_outputs.transpose(0, 1).contiguous().unbind(0)
        back = _Back(ctx.forms, d_end, d_steps, ctx.needs_input_grad[1])
        d_parameters: list[Tensor | None] = [None] * len(parameters)
        for part, template in zip(reversed(ctx.parts), reversed(templates), strict=True):
            begin, time = end - part.num_steps * len(part.changing), time - part.num_steps
            found = back.through(part, template, saved[begin:end], time, [x.shape for x in parameters])
            for number, d in found.items():
                before = d_parameters[number]
                d_parameters[number] = d if before is None else before.add_(d)
            end = begin
        d_all = [*back.d_state, *d_parameters]
        return (
            None,
            torch.stack(back.d_inputs[::-1], 1) if back.d_inputs else None,
            None,
            *(d if want else None for d, want in zip(d_all, ctx.needs_input_grad[3:], strict=True)),
        )


class _Back:
    """The way back through a sequence.

    Args:
        forms: of the output of a step and of the state's tensors.
        d_end: gradients of the state at the end.
        d_steps: of each step's output.
        want_inputs: whether to collect the inputs' gradients.

    Attributes:
        d_state: of the state after the step that is next.
        d_inputs: of the inputs, the last first.
    """

    def __init__(
        self,
        forms: Sequence[tuple[torch.Size, dict[str, Any]]],
        d_end: Sequence[Tensor | None],
        d_steps: Sequence[Tensor] | None,
        want_inputs: bool,
    ):
        self._forms = forms
        self._zeros: dict[int, Tensor] = {}
        self._d_steps = d_steps
        self._want_inputs = want_inputs
        self._ours: set[int] = set()
        self.d_state: list[Tensor | None] = [None if d is None else d.contiguous() for d in d_end]
        self.d_inputs: list[Tensor] = []

    def through(
        self, part: _Part, template: list[Any], kept: Sequence[Tensor], start: int, shapes: Sequence[torch.Size]
    ) -> dict[int, Tensor]:
        """Through some steps, the last first.

        Args:
            part: the steps.
            template: the arguments of a step backwards, as far as they are the same for all.
            kept: the others, step by step.
            start: the number of the part's first step.
            shapes: of the parameters.

        Returns:
            Gradients of parameters, by their numbers.
        """
        recipe, width = part.recipe, len(part.changing)
        program = recipe.programs.backward
        assert program is not None
        sums = _Sums(program, {place: shapes[number] for place, number in recipe.parameters.items()})
        owner = {result: number for number, result in recipe.state_out}
        leaf_of = dict(recipe.state_in)
        of_output = [place for place, result in program.tangents if result == recipe.output]
        of_state = [(place, owner[result]) for place, result in program.tangents if result != recipe.output]
        to_state = [(place, leaf_of[argument]) for place, argument in program.gradients if argument in leaf_of]
        to_input = [place for place, argument in program.gradients if argument == recipe.x]
        # What is no parameter's gradient is needed in the step before.
        at_once = [(product, leaf_of[product.argument]) for product in program.products if product.argument in leaf_of]
        at_input = [product for product in program.products if product.argument == recipe.x]
        constants = {place for place, _ in part.constants}
        d_state = self.d_state
        for step in reversed(range(part.num_steps)):
            arguments = template.copy()
            for place, tensor in zip(part.changing, kept[step * width : (step + 1) * width], strict=True):
                arguments[place] = tensor
            for place in of_output:
                arguments[place] = self._zero(0) if self._d_steps is None else self._d_steps[start + step]
            for place, number in of_state:
                d = d_state[number]
                arguments[place] = self._zero(1 + number) if d is None else d
            results = program.program.again(arguments, constants)
            for number, _ in recipe.state_out:
                d_state[number] = None
                self._ours.discard(number)
            for place, number in to_state:
                self._add(number, results[place])
            for product, number in at_once:
                self._add(number, _now(product, results))
            if self._want_inputs:
                x = [results[place] for place in to_input] + [_now(product, results) for product in at_input]
                self.d_inputs += [d.reshape(self._forms[0][0][0], -1) for d in x]
            sums.add(results)
        return {recipe.parameters[place]: total for place, total in sums.total().items()}

    def _add(self, number: int, d: Tensor) -> None:
        before = self.d_state[number]
        if before is None:
            # As the program takes it.
            self.d_state[number] = d.contiguous().view(self._forms[1 + number][0])
        elif number in self._ours:
            before.add_(d.reshape(before.shape))
        else:
            self.d_state[number] = before + d.reshape(before.shape)
            self._ours.add(number)

    def _zero(self, form: int) -> Tensor:
        if form not in self._zeros:
            shape, kind = self._forms[form]
            self._zeros[form] = torch.zeros(shape, **kind)
        return self._zeros[form]


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
