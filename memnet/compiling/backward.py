"""The way back through a compiled sequence: gradients of the state from step to step, and of what all steps share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memnet.compiling.capture import Recipe
from memnet.compiling.programs import Backward, Product
from memnet.compiling.projections import Projection

ROWS_AT_ONCE = 512
"""At least so many rows, a batch for each step, go into one product for a weight's gradient."""


class Part(NamedTuple):
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


class Back:
    """The way back through a sequence.

    Args:
        forms: of the output of a step and of the state's tensors.
        inputs: of all steps; None if no step has something projected.
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
        inputs: Tensor | None,
        d_end: Sequence[Tensor | None],
        d_steps: Sequence[Tensor] | None,
        want_inputs: bool,
    ):
        self._forms = forms
        self._inputs = inputs
        self._zeros: dict[int, Tensor] = {}
        self._d_steps = d_steps
        self._want_inputs = want_inputs
        self._ours: set[int] = set()
        self.d_state: list[Tensor | None] = [None if d is None else d.contiguous() for d in d_end]
        self.d_inputs: list[Tensor] = []

    def through(
        self, part: Part, template: list[Any], kept: Sequence[Tensor], start: int, parameters: Sequence[Tensor]
    ) -> dict[int, Tensor]:
        """Through some steps, the last first.

        Args:
            part: the steps.
            template: the arguments of a step backwards, as far as they are the same for all.
            kept: the others, step by step.
            start: the number of the part's first step.
            parameters: the cell's.

        Returns:
            Gradients of parameters, by their numbers.
        """
        recipe, width = part.recipe, len(part.changing)
        program = recipe.programs.backward
        assert program is not None
        shapes = {place: parameters[number].shape for place, number in recipe.parameters.items()}
        rests = [each.rest for each in recipe.programs.projections if each.rest is not None]
        sums = _Sums(program, shapes | {place: recipe.arguments[place].shape for place in rests})
        projected = [_Projected(each, program) for each in recipe.programs.projections]
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
        d_inputs: list[Tensor] = []
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
                d_inputs += [d.reshape(self._forms[0][0][0], -1) for d in x]
            for each in projected:
                each.add(results)
            sums.add(results)
        totals = sums.total()
        for each in projected:
            assert self._inputs is not None
            rows = each.rows()
            each.give_weights(rows, self._inputs[:, start : start + part.num_steps], recipe, parameters, totals)
            if self._want_inputs and rows is not None:
                more = each.of_inputs(rows, recipe, part.num_steps)
                d_inputs = [d + e for d, e in zip(d_inputs, more, strict=True)] if d_inputs else more
        self.d_inputs += d_inputs
        return {recipe.parameters[place]: total for place, total in totals.items() if place in recipe.parameters}

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


class _Projected:
    """The way back through a product that was made for all steps at once.

    Args:
        projection: which.
        program: a step backwards.
    """

    def __init__(self, projection: Projection, program: Backward):
        self._projection = projection
        self._places = [place for place, argument in program.gradients if argument == projection.projected]
        self._rows: list[Tensor] = []  # of the last step first

    def add(self, results: Sequence[Any]) -> None:
        """What a step gave."""
        self._rows += [results[place] for place in self._places]

    def rows(self) -> Tensor | None:
        """The product's gradients of all steps, the last step's first; None if it has none."""
        return torch.cat(self._rows) if self._rows else None

    def give_weights(
        self,
        rows: Tensor | None,
        inputs: Tensor,
        recipe: Recipe,
        parameters: Sequence[Tensor],
        totals: dict[int, Tensor],
    ) -> None:
        """Makes the matrix's gradient of those of its two parts, beside what it has otherwise.

        Args:
            rows: as ``rows`` gives them.
            inputs: of these steps.
            recipe: of these steps.
            parameters: the cell's.
            totals: gradients by place among a step's arguments, where it belongs.
        """
        projection = self._projection
        of_rest = None if projection.rest is None else totals.pop(projection.rest, None)
        number = recipe.parameters.get(projection.weight)
        if number is None or not parameters[number].requires_grad:
            return
        total = totals.get(projection.weight)
        if total is None:
            total = totals[projection.weight] = torch.zeros_like(parameters[number])
        if rows is not None:
            last_first = inputs.detach().transpose(0, 1).flip(0).flatten(0, 1)
            projection.of_input(total).addmm_(rows.t(), last_first)
        if of_rest is not None:
            projection.of_rest(total).add_(of_rest)

    def of_inputs(self, rows: Tensor, recipe: Recipe, num_steps: int) -> list[Tensor]:
        """The inputs' gradients, the last step's first."""
        weight = self._projection.of_input(recipe.arguments[self._projection.weight])
        return list((rows @ weight).unflatten(0, (num_steps, -1)).unbind(0))


def _now(product: Product, results: Sequence[Any]) -> Tensor:
    """What is no parameter's gradient is needed in the step before."""
    left = results[product.left]
    return left.sum(0) if product.right is None else left.t() @ results[product.right]


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
