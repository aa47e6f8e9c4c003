"""A compiled step over a whole sequence, as one node of autograd."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from memnet.cells import Cell
from memnet.compiling.backward import Back, Part
from memnet.compiling.capture import Captured, Layout, Recipe


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
) -> tuple[Tensor, list[Tensor], list[Part], list[Tensor]]:
    """Outputs, the state's tensors at the end, the parts of the sequence, and what its steps keep, step by step."""
    all_inputs = inputs.detach().transpose(0, 1).contiguous()
    xs = all_inputs.unbind(0)
    state = [x.detach().contiguous() for x in tensors]
    outputs: list[Tensor] = []
    parts: list[Part] = []
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
        begin = len(outputs) + 1
        projected = _project(recipe, all_inputs[begin : begin + len(steps)]) if steps else []
        _advance(recipe, results, state)
        outputs.append(results[recipe.output])
        kept.extend([results[place] for place in keeping])
        for number, (x, keep) in enumerate(steps):
            arguments = template.copy()
            for place, products in projected:
                arguments[place] = products[number]
            if recipe.x is not None:
                arguments[recipe.x] = x
            if recipe.keep is not None:
                arguments[recipe.keep] = keep
            for place, tensor in recipe.state_in:
                arguments[place] = state[tensor]
            results = program(arguments, constants)
            _advance(recipe, results, state)
            outputs.append(results[recipe.output])
            kept.extend([results[place] for place in keeping])
    return torch.stack(outputs, 1), state, parts, kept


def _project(recipe: Recipe, inputs: Tensor) -> list[tuple[int, Sequence[Tensor]]]:
    """What steps are given in place of multiplying their inputs: place among their arguments, one for each step."""
    return [
        (each.projected, F.linear(inputs, each.of_input(recipe.arguments[each.weight])).unbind(0))
        for each in recipe.programs.projections
    ]


def _fresh(x: Tensor) -> Tensor:
    """An object of its own; strides of axes of size 1, which may be any, as usual, for else it is compiled again."""
    return x.detach().view(-1).view(x.shape)


def _advance(recipe: Recipe, results: Sequence[Any], state: list[Tensor]) -> None:
    for number, result in recipe.state_out:
        state[number] = results[result]


def _begin_part(recipe: Recipe, results: Sequence[Any], num_steps: int) -> tuple[Part, list[int]]:
    """And the places among the results of what each step keeps for itself."""
    part, keeping = Part(recipe, num_steps, [], [], []), []
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
        wanted = any(part.recipe.programs.projections for part in ctx.parts)
        # The parameters are there so that changed ones are noticed.
        ctx.save_for_backward(inputs if wanted else None, *parameters, *constants, *kept)
        ctx.num_parameters = len(parameters)
        # Each an object of its own: one result may be two tensors of the state.
        end = [x.detach() for x in end]
        ctx.mark_non_differentiable(*(x for x in end if not x.is_floating_point()))
        return outputs, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, *saved = ctx.saved_tensors
        begin = ctx.num_parameters
        parameters = saved[:begin]
        templates = []
        for part in ctx.parts:
            template = part.template.copy()
            for place, _ in part.constants:
                template[place], begin = saved[begin], begin + 1
            templates.append(template)
        end, time = len(saved), sum(part.num_steps for part in ctx.parts)
        d_steps = None if d_outputs is None else d_outputs.transpose(0, 1).contiguous().unbind(0)
        back = Back(ctx.forms, inputs, d_end, d_steps, ctx.needs_input_grad[1])
        d_parameters: list[Tensor | None] = [None] * len(parameters)
        for part, template in zip(reversed(ctx.parts), reversed(templates), strict=True):
            begin, time = end - part.num_steps * len(part.changing), time - part.num_steps
            found = back.through(part, template, saved[begin:end], time, parameters)
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


def _form(x: Tensor) -> tuple[torch.Size, dict[str, Any]]:
    return x.shape, {"dtype": x.dtype, "device": x.device}
