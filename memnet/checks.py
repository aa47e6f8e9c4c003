"""Checks of what users pass in: one sentence with the argument, its value and what would be right."""

import math
from typing import Any

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


def check_greater_than_zero(name: str, value: float) -> float:
    """Returns ``value`` if it is a finite number greater than 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}, but must be greater than 0 and finite.")
    return value


def check_fraction(name: str, value: float) -> float:
    """Returns ``value`` if it is a part that leaves something of the whole.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}, but must be at least 0 and less than 1.")
    return value


def check_not_negative(name: str, value: Any) -> int:
    """Returns ``value`` if it is a whole number of at least 0.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 0.")
    return value


def check_seed(seed: Any) -> int:
    """``check_not_negative`` for a seed."""
    return check_not_negative("seed", seed)


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
    if inputs.device.type == "cpu" and not torch.compiler.is_compiling() and not _is_finite(inputs):
        first = tuple((~torch.isfinite(inputs)).nonzero()[0].tolist())
        raise ValueError(
            f"inputs holds {inputs[first].item()} at (batch, time, inp) = {first}, but every number must be finite."
        )


def _is_finite(x: Tensor) -> bool:
    """Whether all numbers are; a sum tells in a tenth of the time, unless large ones are beyond its range together."""
    return math.isfinite(x.detach().sum().item()) or bool(torch.isfinite(x).all())


def check_lengths(lengths: Int64[Tensor, " batch"], batch_size: int, time: int, name: str = "lengths") -> None:
    """Lengths of the sequences in a padded batch: one for each, between 1 and the padded length.

    Raises:
        ValueError: they are not whole numbers, not one for each sequence, or out of range.
    """
    if lengths.is_floating_point() or lengths.is_complex():
        raise ValueError(f"{name} has dtype {lengths.dtype}, but must hold whole numbers (torch.int64).")
    if lengths.shape != (batch_size,):
        raise ValueError(f"{name} has shape {tuple(lengths.shape)}, but the inputs hold {batch_size} sequences.")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 1 or high > time:
        wrong = low if low < 1 else high
        raise ValueError(f"{name} holds {wrong}, but must lie between 1 and the inputs' {time} time steps.")


def check_symbols(name: str, symbols: Int64[Tensor, "batch time"], vocab_size: int) -> None:
    """Sequences of symbols of one vocabulary. They are looked at on the CPU only, where looking costs nothing.

    Raises:
        ValueError: they are not two-dimensional whole numbers, empty, or not all from 0 to ``vocab_size - 1``.
    """
    if symbols.dim() != 2 or 0 in symbols.shape:
        raise ValueError(f"{name} has shape {tuple(symbols.shape)}, but must be (batch, time), none of them 0.")
    if symbols.dtype is not torch.int32:
        _check_type(name, symbols, "symbol")
    _check_numbers(name, symbols, vocab_size, "symbol")


def check_answers(num_answers: int | None, vocab_size: int) -> int:
    """How many of the words, the first ones, can be answers: all of them if that is not said.

    Raises:
        ValueError: it is not positive, or there are more answers than words.
    """
    num_answers = check_positive("num_answers", vocab_size if num_answers is None else num_answers)
    if num_answers > vocab_size:
        raise ValueError(f"num_answers is {num_answers}, but there are only {vocab_size} words (vocab_size).")
    return num_answers


def check_story(
    story: Int64[Tensor, "*member batch sentence word"], question: Int64[Tensor, "*member batch asked"], vocab_size: int
) -> None:
    """Stories and the questions about them, also with one more axis in front, as in an ``Ensemble``.

    Raises:
        ValueError: they have another form or number of axes, are empty, or hold (looked at on the CPU only) a word that
            is not from 0 to ``vocab_size - 1``.
    """
    shapes = tuple(story.shape), tuple(question.shape)
    if story.dim() < 3 or 0 in story.shape or 0 in question.shape or shapes[0][:-2] != shapes[1][:-1]:
        raise ValueError(
            f"story has shape {shapes[0]} and question {shapes[1]}, but they must be (batch, sentence, word) and "
            "(batch, word), none of them 0."
        )
    for name, words in {"story": story, "question": question}.items():
        _check_type(name, words, "word")
        _check_numbers(name, words, vocab_size, "word")


def _check_type(name: str, numbers: Tensor, kind: str) -> None:
    if numbers.dtype is not torch.int64:
        raise ValueError(f"{name} has dtype {numbers.dtype}, but must hold {kind}s' numbers (torch.int64).")


def _check_numbers(name: str, numbers: Tensor, vocab_size: int, kind: str) -> None:
    if numbers.device.type == "cpu" and _may_look():
        low, high = (int(number) for number in numbers.aminmax())
        if low < 0 or high >= vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(f"{name} holds {kind} {wrong}, but must hold numbers from 0 to {vocab_size - 1} only.")


def _may_look() -> bool:
    """Whether the numbers in a tensor can be asked for: not while torch only follows the operations."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None


def check_source(
    source: Int64[Tensor, "batch source"],
    source_lengths: Int64[Tensor, " batch"] | None,
    vocab_size: int,
    max_source_length: int | None = None,
) -> None:
    """What an encoder can read: symbols, their lengths, and not more of them than it is built for.

    Raises:
        ValueError: the symbols or the lengths do not fit (see above), or a source is longer than ``max_source_length``.
    """
    check_symbols("source", source, vocab_size)
    longest = source.shape[1]
    if source_lengths is not None:
        check_lengths(source_lengths, source.shape[0], source.shape[1], name="source_lengths")
        longest = int(source_lengths.max())
    if max_source_length is not None and longest > max_source_length:
        raise ValueError(f"source holds {longest} symbols, but the model's max_source_length is {max_source_length}.")
