"""A program of one step as a CUDA graph: one launch in place of one for each of its kernels.

The step is recorded, not the sequence, so that no length is recorded anew and nothing is padded to one. What changes
from step to step is copied to where the recording reads it, and what it has written is copied out, before another
recording, of which many share one pool of memory, may write there.
"""

import warnings
from collections.abc import Callable, Container, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

Program = Callable[[list[Any]], Sequence[Any]]
"""Takes a list, which it empties."""


MOST_RECORDINGS = 20
"""Of one program. A cell's parameters usually stay where they are, and a recording takes as long as many steps."""


class Recording(NamedTuple):
    """A program that was recorded.

    Attributes:
        replay: runs it once more on the same arguments, whatever is in them by then.
        results: where it writes.
    """

    replay: Callable[[], Any]
    results: Sequence[Any]


def wanted(arguments: Sequence[Any]) -> bool:
    """Whether there is anything to record: all tensors are on the GPU that is the current one.

    Args:
        arguments: of a program.
    """
    devices = {x.device for x in arguments if isinstance(x, Tensor)}
    return {each.type for each in devices} == {"cuda"} and {each.index for each in devices} == {
        torch.cuda.current_device()
    }


def record(program: Program, arguments: Sequence[Any]) -> Recording:
    """Records a program.

    Args:
        program: what only launches kernels, and waits for none.
        arguments: what it is to read whenever it is replayed.

    Raises:
        RuntimeError: it does more than that.
    """
    # Libraries set themselves up in the first call on a stream, which cannot be recorded.
    random = torch.cuda.get_rng_state()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        program(list(arguments))
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.set_rng_state(random)
    graph = torch.cuda.CUDAGraph()
    # Other threads, as those that hand batches to the GPU, may go on with what they do.
    with torch.cuda.graph(graph, pool=_pool(torch.cuda.current_device()), capture_error_mode="thread_local"):
        results = program(list(arguments))
    return Recording(graph.replay, results)


@cache
def _pool(device: int) -> Any:
    return torch.cuda.graph_pool_handle()


class Replayed:
    """A program that is run over and over: recorded the first time, where that is worth while, and then replayed.

    Args:
        program: the program.
    """

    def __init__(self, program: Program):
        self._program = program
        self._taken: _Taken | None = None
        self._recordings_left: int | None = None

    def __call__(self, arguments: list[Any]) -> Sequence[Any]:
        """Runs the program as it is."""
        return self._program(arguments)

    def again(self, arguments: list[Any], constants: Container[int]) -> Sequence[Any]:
        """The same numbers, from the recording if there is one.

        Args:
            arguments: the program's.
            constants: places of those that are the same in all steps.
        """
        if self._recordings_left is None:
            self._recordings_left = MOST_RECORDINGS if wanted(arguments) else 0
        if self._taken is None or not self._taken.fits(arguments):
            self._taken = self._take(arguments, constants) if self._recordings_left else None
        return self._program(arguments) if self._taken is None else self._taken(arguments)

    def _take(self, arguments: Sequence[Any], constants: Container[int]) -> "_Taken | None":
        assert self._recordings_left
        self._recordings_left -= 1
        try:
            if not self._recordings_left:
                raise RuntimeError(f"its parameters were in {MOST_RECORDINGS} places.")
            return _Taken(self._program, arguments, constants)
        except RuntimeError as error:
            self._recordings_left = 0
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warnings.warn(
                "memnet cannot record a compiled step as a CUDA graph and launches its kernels one by one, which is "
                f"slower: {reason}",
                stacklevel=3,
            )
            return None


class _Taken:
    """A recording, with the way in and out.

    Args:
        program: what is recorded.
        arguments: of a step.
        constants: places of those that are read where they are.
    """

    def __init__(self, program: Program, arguments: Sequence[Any], constants: Container[int]):
        tensors = [place for place, each in enumerate(arguments) if isinstance(each, Tensor)]
        self._others = [(place, each) for place, each in enumerate(arguments) if place not in tensors]
        self._fixed = [(place, arguments[place].data_ptr()) for place in tensors if place in constants]
        self._moving = [place for place in tensors if place not in constants]
        copies = {place: _Copy(arguments[place]) for place in self._moving}
        self._into = [copies[place].flat for place in self._moving]
        self._forms = [(arguments[place].shape, arguments[place].stride()) for place in self._moving]
        # The recording reads these and writes into its results, so all of them must live as long as it does.
        self._read = [copies[place].whole if place in copies else each for place, each in enumerate(arguments)]
        self._replay, results = record(program, self._read)
        given = {id(each): place for place, each in enumerate(self._read) if isinstance(each, Tensor)}
        # A result that is an argument needs no copy: the caller's own is handed back.
        self._same = [(place, given[id(each)]) for place, each in enumerate(results) if id(each) in given]
        own = [place for place, each in enumerate(results) if isinstance(each, Tensor) and id(each) not in given]
        self._results = [(place, results[place]) for place in own]
        self._template = [None if isinstance(each, Tensor) else each for each in results]

    def fits(self, arguments: Sequence[Any]) -> bool:
        """Whether these are arguments like those that were recorded, the constant ones where they were."""
        return (
            all(arguments[place].data_ptr() == pointer for place, pointer in self._fixed)
            and all(arguments[place] == each for place, each in self._others)
            and [(arguments[place].shape, arguments[place].stride()) for place in self._moving] == self._forms
        )

    def __call__(self, arguments: list[Any]) -> Sequence[Any]:
        if self._moving:
            torch._foreach_copy_(self._into, [_flat(arguments[place]) for place in self._moving])
        self._replay()
        results = self._template.copy()
        copies = [_Copy(each) for _, each in self._results]
        if copies:
            torch._foreach_copy_([each.flat for each in copies], [_flat(each) for _, each in self._results])
        for (place, _), each in zip(self._results, copies, strict=True):
            results[place] = each.whole
        for place, argument in self._same:
            results[place] = arguments[argument]
        arguments.clear()
        return results


class _Copy:
    """Memory for a tensor like another one, with the same strides, whatever they are.

    Attributes:
        flat: all of it in one row, with what lies between.
        whole: the tensor.

    Args:
        x: the other one.
    """

    def __init__(self, x: Tensor):
        self.flat = x.new_empty(_span(x))
        self.whole = self.flat.as_strided(x.shape, x.stride())


def _flat(x: Tensor) -> Tensor:
    return x.as_strided((_span(x),), (1,))


def _span(x: Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
