"""The recurrent entity network on the CPU: from words to logits.

The arithmetic is in ``entity_cpu.cpp``: one C call for a forward and one for a backward pass. Before them the batch's
stories are sorted, so that padding is left out and what several questions know is read once.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.access import ReadAccess
from memnet.addressing import ContentAddressing
from memnet.kernels import build, workspace
from memnet.kernels.ntm_cell import is_plain_tensor
from memnet.normalizers import Softmax
from memnet.scores import DotScore

SOURCE = "entity_cpu.cpp"

_CPU = torch.device("cpu")
_SIZES = (
    *("batch", "sentences", "words", "asked", "vocabulary", "positions", "slots", "width", "answers"),
    *("kept", "threads"),
)
_TENSORS = (
    *("words", "keys", "sentence_masks", "question_masks", "gate_bias"),
    *("from_memory", "from_keys", "from_sentence", "bias", "slopes", "from_read", "answers"),
)


class _Sizes(ctypes.Structure):
    """As the C++ ``Sizes``."""

    _fields_ = tuple((name, ctypes.c_int64) for name in _SIZES)


class _Inputs(ctypes.Structure):
    """As the C++ ``Inputs``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("story", "question", "plan"))


class _Tensors(ctypes.Structure):
    """As the C++ ``Tensors``: parameters, or their gradients."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _TENSORS)


def run(model: Any, story: Tensor, question: Tensor) -> Tensor | None:
    """``forward`` of a network; None where this would not be what the plain network computes.

    Args:
        model: a ``memnet.EntityNetwork`` that ``entity_network.fits``.
        story: as for its ``forward``, which does not refuse it.
        question: as for its ``forward``.
    """
    if torch.is_autocast_enabled("cpu") or not _is_standard(model) or not _are_supported(story, question):
        return None
    tensors = _tensors(model)
    if (
        not all(is_plain_tensor(x, _CPU) for x in tensors)
        or [tuple(x.shape) for x in tensors] != _shapes(model)
        or max(story.shape[2], question.shape[1]) > model.num_words  # the network itself refuses longer ones
        or build.load(SOURCE) is None
    ):
        return None
    logits: Tensor = _Questions.apply(story.contiguous(), question.contiguous(), torch.is_grad_enabled(), *tensors)
    return logits


class _Questions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, story: Tensor, question: Tensor, graded: bool, *tensors: Tensor) -> Tensor:
        tensors = tuple(x.contiguous() for x in tensors)
        (rows, width), (slots, _), (positions, _) = (x.shape for x in tensors[:3])
        batch, sentences, words = story.shape
        kept = graded and any(ctx.needs_input_grad)
        ctx.sizes = _Sizes(
            batch=batch,
            sentences=sentences,
            words=words,
            asked=question.shape[1],
            vocabulary=rows + 1,
            positions=positions,
            slots=slots,
            width=width,
            answers=len(tensors[-1]),
            kept=kept,
            threads=max(1, torch.get_num_threads()),
        )
        plan, numbers = _plan(ctx.sizes, story)
        history = workspace.floats(numbers if kept else 0)
        logits = tensors[0].new_empty(batch, ctx.sizes.answers)
        inputs = _inputs(story, question, plan)
        _invoke("forward", ctx.sizes, inputs, _addresses(tensors), _address(history), _address(logits))
        if kept:
            ctx.save_for_backward(story, question, plan, history, *tensors)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logits: Tensor) -> tuple[Tensor | None, ...]:
        story, question, plan, history, *tensors = ctx.saved_tensors
        gradients = [torch.empty_like(x) for x in tensors]
        by_logits = by_logits.contiguous()
        inputs, given = _inputs(story, question, plan), _addresses(tensors)
        _invoke("backward", ctx.sizes, inputs, given, _address(history), _address(by_logits), _addresses(gradients))
        return None, None, None, *gradients


def _is_standard(model: Any) -> bool:
    """Exact types all the way down: a subclass may have other equations."""
    from memnet.models.story_encoding import LearnedMask  # which imports this package

    output = model.output
    return (
        type(model.sentence_encoding) is type(model.question_encoding) is LearnedMask
        and type(output) is ReadAccess
        and output.interface is None
        and output.num_read_heads == 1
        and type(output.addressing) is ContentAddressing
        and type(output.addressing.score) is DotScore
        and type(output.addressing.normalizer) is Softmax
    )


def _are_supported(*words: Tensor) -> bool:
    return all(is_plain_tensor(x, _CPU, torch.int64) for x in words)


def _tensors(model: Any) -> list[Any]:
    """In the order in which the C++ takes them."""
    return [
        model.words,
        model.keys,
        model.sentence_encoding.masks,
        model.question_encoding.masks,
        model.gate.bias,
        model.from_memory,
        model.from_keys,
        model.from_sentence,
        model.bias,
        model.slopes,
        model.from_read,
        model.answers,
    ]


def _shapes(model: Any) -> list[tuple[int, ...]]:
    """Of the tensors that ``_tensors`` lists."""
    slots, width = model.num_slots, model.embedding_size
    masks, square = (model.num_words, width), (width, width)
    return [
        *((model.vocab_size - 1, width), (slots, width), masks, masks, (slots,)),
        *(square, square, square, (width,), (width,), square, (model.num_answers, width)),
    ]


def _plan(sizes: _Sizes, story: Tensor) -> tuple[Tensor, int]:
    """Which stories are read and what is asked of them, and how many numbers a forward pass keeps."""
    plan = torch.empty(sizes.batch * (sizes.sentences + 3) + 2, dtype=torch.int64)
    numbers = ctypes.c_int64()
    _invoke("plan", sizes, _address(story), _address(plan), numbers)
    return plan, numbers.value


def _inputs(*tensors: Tensor) -> _Inputs:
    return _Inputs(*[x.data_ptr() for x in tensors])


def _addresses(tensors: Any) -> _Tensors:
    return _Tensors(*[x.data_ptr() for x in tensors])


def _address(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _invoke(name: str, *arguments: Any) -> None:
    given = [x if isinstance(x, ctypes.c_void_p) else ctypes.byref(x) for x in arguments]
    if getattr(build.load(SOURCE), f"memnet_entity_{name}")(*given):
        raise MemoryError("The kernel of the recurrent entity network ran out of memory.")
