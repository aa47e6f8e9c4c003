"""The loop over time with a compiled step: for every cell that has no kernel of its own.

One step is compiled, never the loop. ``torch.compile`` captures it and watches over what it depends on; but its own way
of running what it captured takes as long, at each step, as the arithmetic. So the graph that it hands over is made into
two programs here, one step forwards and one backwards, and the whole sequence is one node of autograd: nothing is
checked, wrapped or recorded again at each step, and the gradient of a weight matrix is one product over many steps.

Importing this loads the compiler, which takes a second; ``memnet.unroll`` does so when it is first asked to compile.
"""

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from memnet.cells import Cell
from memnet.compiling.capture import Captured, Layout
from memnet.compiling.sequence import Call, run_sequence
from memnet.kernels.ntm_cell import is_plain_call
from memnet.recording import has_hooks

_captured: WeakKeyDictionary[Cell, Captured] = WeakKeyDictionary()


def fits(cell: Cell, inputs: Tensor, state: Any) -> bool:
    """Whether ``run`` may be tried: nobody watches the single operations, and the state is made of tensors."""
    return (
        not (cell in _captured and _captured[cell].broken)
        and is_plain_call()
        and not has_hooks(cell)
        and not torch.is_autocast_enabled(inputs.device.type)
        and all(leaf is None or type(leaf) in (Tensor, torch.nn.Parameter) for leaf in tree_flatten(state)[0])
    )


def run(cell: Cell, inputs: Tensor, state: Any, alive: Sequence[Tensor | None]) -> tuple[Tensor, Any] | None:
    """The loop of ``memnet.unroll``.

    Args:
        cell: one that ``fits``.
        inputs: ``(batch, time, inp)``.
        state: where to begin.
        alive: for each step, which sequences have not ended; None while none has.

    Returns:
        Outputs and final state. None, after one warning, if the step cannot be compiled; then nothing has happened.
    """
    if cell not in _captured:
        _captured[cell] = Captured()
    captured = _captured[cell]
    leaves, spec = tree_flatten(state)
    layout = Layout(spec, [place for place, leaf in enumerate(leaves) if leaf is not None], len(leaves))
    tensors = [leaves[place] for place in layout.places]
    random = torch.get_rng_state()
    try:
        call = Call(captured, cell, layout, alive)
        outputs, end = run_sequence(call, inputs, tensors, list(cell.parameters()))
    except Exception as error:  # torch.compile's are of many kinds; one of the cell's own comes up again
        torch.set_rng_state(random)
        captured.broken = True
        cause = getattr(error, "inner_exception", None) or error  # what torch.compile has wrapped
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        warnings.warn(
            f"memnet cannot compile the steps of {type(cell).__name__} and takes the plain loop, which is slower: "
            f"{reason}",
            stacklevel=4,
        )
        return None
    return outputs, layout.state(end)
