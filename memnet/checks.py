"""Checks of what users pass in: one sentence with the argument, its value and what would be right."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def check_positive(name: str, value: int) -> int:
    """Returns ``value`` if it is a whole number of at least 1.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1.")
    return value


def check_odd(name: str, value: int) -> int:
    """Returns ``value`` if it is a positive odd number.

    Raises:
        ValueError: it is not.
    """
    if check_positive(name, value) % 2 == 0:
        raise ValueError(f"{name} is {value}, but must be odd: as many shifts to one side as to the other.")
    return value


def check_size(name: str, value: int, other_name: str, other: int) -> None:
    """Two sizes that have to be equal.

    Raises:
        ValueError: they are not.
    """
    if value != other:
        raise ValueError(f"{name} is {value}, but {other_name} is {other}: they must be equal.")


def check_inputs(inputs: Float[Tensor, "batch time inp"], input_size: int) -> None:
    """Sequences that a model can run over. Numbers are looked at on the CPU only, where looking costs nothing.

    Raises:
        ValueError: they are not three-dimensional, empty, of another width or not finite.
    """
    if inputs.dim() != 3 or 0 in inputs.shape:
        raise ValueError(f"inputs has shape {tuple(inputs.shape)}, but must be (batch, time, inp), none of them 0.")
    check_size("the inputs' width", inputs.shape[-1], "input_size", input_size)
    if inputs.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.isfinite(inputs).all():
        first = tuple((~torch.isfinite(inputs)).nonzero()[0].tolist())
        raise ValueError(
            f"inputs holds {inputs[first].item()} at (batch, time, inp) = {first}, but every number must be finite."
        )


def check_lengths(lengths: Int64[Tensor, " batch"], batch_size: int, time: int) -> None:
    """Lengths of the sequences in a padded batch: one for each, between 1 and the padded length.

    Raises:
        ValueError: they are not whole numbers, not one for each sequence, or out of range.
    """
    if lengths.is_floating_point() or lengths.is_complex():
        raise ValueError(f"lengths has dtype {lengths.dtype}, but must hold whole numbers (torch.int64).")
    if lengths.shape != (batch_size,):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}, but the inputs hold {batch_size} sequences.")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 1 or high > time:
        wrong = low if low < 1 else high
        raise ValueError(f"lengths holds {wrong}, but must lie between 1 and the inputs' {time} time steps.")
