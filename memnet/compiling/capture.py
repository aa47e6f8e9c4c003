"""One step of a cell as ``torch.compile`` sees it, and how a step follows from the one before."""

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import jaxtyping
import torch
from torch import Tensor, fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from memnet.cells import Cell
from memnet.compiling.programs import Programs, build

_ON_SIDE_EFFECTS = "side_effect_replay_policy"


class MisfitError(Exception):
    """Why a step cannot be run over and over; the reason in one sentence."""


class Recipe(NamedTuple):
    """How to make a step from the one before.

    Attributes:
        programs: the step.
        arguments: of the first step, in the programs' order; parameters and numbers stay the same.
        x: the place of the input among them; None if the step does not look at it.
        keep: the place of the mask; None if there is none.
        state_in: places of the state's tensors: argument, number of the tensor.
        state_out: number of the tensor, number of the result that it becomes; those that stay the same are left out.
        output: which result is the output.
        parameters: place among the arguments to number of the parameter.
    """

    programs: Programs
    arguments: list[Any]
    x: int | None
    keep: int | None
    state_in: list[tuple[int, int]]
    state_out: list[tuple[int, int]]
    output: int
    parameters: dict[int, int]

    @property
    def constants(self) -> set[int]:
        """Places of the arguments that are the same in all steps."""
        changing = {self.x, self.keep, *(place for place, _ in self.state_in)}
        return set(range(len(self.arguments))) - changing - {each.projected for each in self.programs.projections}


class Layout(NamedTuple):
    """How a state is made of its tensors.

    Attributes:
        spec: the nesting.
        places: of the tensors among all leaves; the other leaves are None.
        num_leaves: of all.
    """

    spec: TreeSpec
    places: list[int]
    num_leaves: int

    def leaves(self, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """All leaves, of which these are the tensors."""
        leaves: list[Tensor | None] = [None] * self.num_leaves
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return leaves

    def state(self, tensors: Sequence[Tensor]) -> Any:
        """The state, of which these are the tensors."""
        return tree_unflatten(self.leaves(tensors), self.spec)


class _FirstCall(NamedTuple):
    """What the backend saw: the programs, what it was given, all that they gave, and the results handed on."""

    programs: Programs
    arguments: list[Any]
    results: Sequence[Any]
    shown: Sequence[Tensor]


class Captured:
    """The compiled step of one cell, compiled when it is first needed and again for another kind of call.

    Attributes:
        broken: whether this cell's step cannot be compiled.
    """

    def __init__(self) -> None:
        self.broken = False
        self._calls: list[_FirstCall] = []
        self._steps: dict[tuple[bool, bool], Callable[..., Any]] = {}

    def _step(self, training: bool, masked: bool) -> Callable[..., Any]:
        """torch.compile counts by code object what it has compiled, and gives up at some number: each has its own."""
        if (training, masked) not in self._steps:
            own = types.FunctionType(inspect.unwrap(_step).__code__.replace(), globals())
            backend = partial(self._backend, training)
            self._steps[training, masked] = torch.compile(own, backend=backend, fullgraph=True)
        return self._steps[training, masked]

    def _backend(self, training: bool, graph: fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        programs = build(graph, training)

        def call(*given: Any) -> Sequence[Any]:
            arguments = list(given)
            with torch.no_grad():
                for projection in programs.projections:
                    arguments += projection.arguments(given)
                results = programs.forward(arguments.copy())
            # Each an object of its own, by which it is known again: two results may be one tensor.
            shown = [x.detach() for x in results[: programs.num_results]]
            self._calls.append(_FirstCall(programs, arguments, results, shown))
            return shown

        return call

    def first_step(
        self,
        cell: Cell,
        x: Tensor,
        keep: Tensor | None,
        tensors: Sequence[Tensor],
        layout: Layout,
        parameters: Sequence[Tensor],
    ) -> tuple[Recipe, Sequence[Any]]:
        """Takes one step by way of ``torch.compile``, and sees which tensor is which.

        Args:
            cell: the cell.
            x: its input.
            keep: which sequences have not ended; None while none has.
            tensors: of the state; no two of them the same object.
            layout: of the state.
            parameters: the cell's.

        Returns:
            The recipe for the steps to come, and what the programs gave in this one.

        Raises:
            MisfitError: they cannot be made from this one, or nobody knows whether they can.
        """
        self._calls.clear()
        for tensor in (x, *tensors):
            # Only the batch may be of another size. Where another cell's widths differ, they would else be variables.
            torch._dynamo.mark_static(tensor, list(range(1, tensor.dim())))
        step = self._step(torch.is_grad_enabled(), keep is not None)
        with _without_shape_checks(), _no_side_effects(), _numbers_as_they_are():
            output, new_leaves = step(cell, x, keep, layout.leaves(tensors), layout.spec)
        if len(self._calls) != 1:
            raise MisfitError("a step is not one graph.")
        programs, arguments, results, shown = self._calls.pop()
        tensor_of = {id(tensor): number for number, tensor in enumerate(tensors)}
        parameter_of = {id(parameter): number for number, parameter in enumerate(parameters)}
        place_of = {id(argument): place for place, argument in enumerate(arguments)}
        known = {id(x), *tensor_of, *parameter_of}
        if any(isinstance(a, Tensor) and a.requires_grad and id(a) not in known for a in arguments):
            raise MisfitError("a step uses a tensor that needs gradients and is no parameter of the cell.")
        # So that a name which torch.compile gives otherwise some day does not go unnoticed.
        if any(arguments[projection.x] is not x for projection in programs.projections):
            raise MisfitError("what was taken for the input of a step is something else.")
        result_of = {id(result): number for number, result in enumerate(shown)}
        if id(output) not in result_of:
            raise MisfitError("the output of a step is not computed.")
        state_out = []
        for number, (place, before) in enumerate(zip(layout.places, tensors, strict=True)):
            after = new_leaves[place]
            if after is before:
                continue
            if id(after) not in result_of:
                raise MisfitError("the state after a step is not computed.")
            state_out.append((number, result_of[id(after)]))
        recipe = Recipe(
            programs=programs,
            arguments=[a.detach() if isinstance(a, Tensor) else a for a in arguments],
            x=place_of.get(id(x)),
            keep=None if keep is None else place_of.get(id(keep)),
            state_in=[(place_of[own], number) for own, number in tensor_of.items() if own in place_of],
            state_out=state_out,
            output=result_of[id(output)],
            parameters={place_of[own]: number for own, number in parameter_of.items() if own in place_of},
        )
        return recipe, results


def _step(cell: Cell, x: Tensor, keep: Tensor | None, leaves: list[Tensor | None], spec: TreeSpec) -> Any:
    """What is compiled. Where ``keep`` is false a sequence has ended: no output, and its state stays."""
    output, state = cell(x, tree_unflatten(leaves, spec))
    new_leaves, new_spec = tree_flatten(state)
    if new_spec != spec:
        raise MisfitError("the state changes its form from step to step.")
    new: list[Tensor | None] = []
    for after, before in zip(new_leaves, leaves, strict=True):
        if after is not None and before is not None and after is not before:
            if after.shape != before.shape or after.dtype != before.dtype:
                raise MisfitError("the state changes its form from step to step.")
            after = _select(keep, after, before)
        new.append(after)
    return _select(keep, output, None), new


def _select(keep: Tensor | None, new: Tensor, old: Tensor | None) -> Tensor:
    """``old``, or zeros, where ``keep`` is false; a tensor of its own, that is no view of anything."""
    if keep is None:
        return new.clone(memory_format=torch.contiguous_format)  # ``programs`` removes this where it can
    old = torch.zeros_like(new) if old is None else old
    return torch.where(keep.reshape(-1, *[1] * (new.dim() - 1)), new, old).contiguous()


@contextmanager
def _without_shape_checks() -> Iterator[None]:
    """Those of jaxtyping cannot be compiled."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _numbers_as_they_are() -> AbstractContextManager[None]:
    """What a cell's number is stands in its programs. Where another cell's differs, it would else become a variable."""
    return torch._dynamo.config.patch(specialize_float=True)


def _no_side_effects() -> AbstractContextManager[None]:
    """Those would happen in the first step only; so torch.compile shall refuse.

    Raises:
        MisfitError: it does not know how to.
    """
    if not hasattr(torch._dynamo.config, _ON_SIDE_EFFECTS):
        raise MisfitError(f"PyTorch {torch.__version__} does not tell whether a step changes its cell.")
    return torch._dynamo.config.patch(_ON_SIDE_EFFECTS, "error")
