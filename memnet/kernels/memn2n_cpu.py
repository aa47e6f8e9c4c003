"""End-to-end memory networks on the CPU: one, or all members of an ensemble at once.

The arithmetic is in ``memn2n_cpu.cpp``: one C call for a forward and one for a backward pass.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from memnet.access import ReadAccess
from memnet.addressing import ContentAddressing
from memnet.kernels import build
from memnet.kernels.ntm_cell import is_plain_call, is_watched
from memnet.normalizers import Softmax
from memnet.scores import DotScore

SOURCE = "memn2n_cpu.cpp"


_NETWORK = ("keys", "values", "most_empty", "softmax", "positions")
_INPUTS = ("story", "question", "noise")


class _Sizes(ctypes.Structure):
    """As the C++ ``Sizes``."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("members", "batch", "sentences", "words", "asked"),
            *("vocabulary", "width", "hops", "slots", "matrices", "memories", "question", "tied", "answers"),
            *("linear_map", "rectified", "draws", "threads"),
        )
    )


class _Network(ctypes.Structure):
    """As the C++ ``Network``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _NETWORK)


class _Inputs(ctypes.Structure):
    """As the C++ ``Inputs``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _INPUTS)


def fits(model: nn.Module, story: Tensor, question: Tensor) -> bool:
    """Whether ``run`` computes what the plain network would."""
    if not _is_standard(model) or not is_plain_call() or torch.is_autocast_enabled("cpu"):
        return False
    members = tuple(story.shape[:-3])
    tensors, inserted = _tensors(model), _inserted(model)
    return (
        all(map(_is_supported, tensors))
        and [tuple(tensor.shape) for tensor in tensors] == [(*members, *shape) for shape in _shapes(model)]
        and (inserted is None or tuple(inserted.shape) == members)
        and all(x.device.type == "cpu" and x.dtype is torch.int64 for x in (story, question))
        and build.load(SOURCE) is not None
    )


def run(model: Any, story: Tensor, question: Tensor, noise: Tensor | None) -> Tensor:
    """``forward`` of a network that ``fits``, for inputs that it does not refuse; or of all members."""
    logits = _Questions.apply(_Call(model, story, question, noise), *_tensors(model))
    return logits.squeeze(0) if story.dim() == 3 else logits


class _Call:
    """What a forward pass and its backward pass have in common, laid out as the C++ wants it."""

    def __init__(self, model: Any, story: Tensor, question: Tensor, noise: Tensor | None):
        from memnet.models.story_encoding import PositionEncoding

        if story.dim() == 3:
            story, question = story.unsqueeze(0), question.unsqueeze(0)
        layout, encoding, inserted = model.layout, model.sentence_encoding, _inserted(model)
        members, batch, sentences, words = story.shape
        asked = question.shape[-1]
        positions = None
        if type(encoding) is PositionEncoding:
            positions = encoding.weights(max(words, asked), model.embedding_size)
        softmax = torch.ones(members, dtype=torch.bool) if inserted is None else inserted.expand(members)
        # A copy of what may be changed before the backward pass, which needs it as it was.
        self._kept = {
            "keys": torch.tensor(layout.keys),
            "values": torch.tensor(layout.values),
            "most_empty": torch.tensor(model.most_empty),
            "softmax": softmax.clone(),
            "positions": None if positions is None else positions.float().contiguous(),
            "story": story.contiguous(),
            "question": question.contiguous(),
            "noise": None if noise is None else noise.detach().float().contiguous(),
        }
        self.sizes = _Sizes(
            members=members,
            batch=batch,
            sentences=sentences,
            words=words,
            asked=asked,
            vocabulary=model.vocab_size,
            width=model.embedding_size,
            hops=len(layout.keys),
            slots=model.num_sentences,
            matrices=layout.num_matrices,
            memories=len(model.times),
            question=layout.question,
            tied=-1 if layout.answer is None else layout.answer,
            answers=model.num_answers,
            linear_map=layout.linear_map,
            rectified=model.activation is not None,
            draws=0 if noise is None else noise.shape[-1],
            threads=max(1, torch.get_num_threads()),
        )

    def arguments(self) -> tuple[Any, ...]:
        addresses = {name: None if x is None else x.data_ptr() for name, x in self._kept.items()}
        network = {name: addresses[name] for name in _NETWORK}
        inputs = {name: addresses[name] for name in _INPUTS}
        return tuple(map(ctypes.byref, (self.sizes, _Network(**network), _Inputs(**inputs))))


class _Questions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        logits = torch.empty(call.sizes.members, call.sizes.batch, call.sizes.answers)
        _invoke("memnet_memn2n_forward", *call.arguments(), _addresses(tensors), ctypes.c_void_p(logits.data_ptr()))
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        tensors = ctx.saved_tensors
        d_logits = d_logits.contiguous()
        d_tensors = [torch.empty_like(tensor) for tensor in tensors]
        _invoke(
            "memnet_memn2n_backward",
            *call.arguments(),
            _addresses(tensors),
            ctypes.c_void_p(d_logits.data_ptr()),
            _addresses(d_tensors),
        )
        return None, *d_tensors


def _is_standard(model: Any) -> bool:
    """Exact types all the way down: a subclass may have other equations. And nobody to be called at each step."""
    from memnet.models.memn2n import MemN2N
    from memnet.models.story_encoding import BagOfWords, PositionEncoding

    return (
        type(model) is MemN2N
        and type(model.sentence_encoding) in (BagOfWords, PositionEncoding)
        and type(model.activation) in (type(None), nn.ReLU)
        and all(map(_is_standard_hop, model.hops))
        and len({hop.addressing.normalizer for hop in model.hops}) == 1  # type: ignore[union-attr]
        and not any(map(is_watched, model.modules()))
    )


def _is_standard_hop(hop: Any) -> bool:
    from memnet.models.memn2n import LateSoftmax

    return (
        type(hop) is ReadAccess
        and hop.interface is None
        and hop.num_read_heads == 1
        and type(hop.addressing) is ContentAddressing
        and type(hop.addressing.score) is DotScore
        and type(hop.addressing.normalizer) in (Softmax, LateSoftmax)
    )


def _tensors(model: Any) -> list[Tensor]:
    """The parameters in the order in which the C++ takes them."""
    rest = [tensor for tensor in (model.linear_map, model.answers) if tensor is not None]
    return [*model.words, *model.times, *rest]


def _shapes(model: Any) -> list[tuple[int, int]]:
    """Of the tensors that ``_tensors`` lists, for one member."""
    width = model.embedding_size
    shapes = [(model.vocab_size - 1, width)] * len(model.words) + [(model.num_sentences, width)] * len(model.times)
    if model.linear_map is not None:
        shapes.append((width, width))
    if model.answers is not None:
        shapes.append((model.num_answers, width))
    return shapes


def _inserted(model: Any) -> Tensor | None:
    """Which members have their softmax in; None for all."""
    return getattr(model.hops[0].addressing.normalizer, "inserted", None)


def _is_supported(x: Tensor) -> bool:
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype is torch.float32
        and x.device.type == "cpu"
        and x.layout is torch.strided
        and x.is_contiguous()
    )


def _addresses(tensors: Any) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def _invoke(name: str, *arguments: Any) -> None:
    if getattr(build.load(SOURCE), name)(*arguments):
        raise MemoryError("The kernel of the end-to-end memory network ran out of memory.")
