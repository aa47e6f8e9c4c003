"""Training step of the Neural Turing Machine by number of slots.

As ``ntm``, with a batch of 4: the plain loop keeps the memory of every step several times over.
"""

from collections.abc import Iterator, Sequence

from memnet.bench.copying import CopyWork, measure
from memnet.bench.measuring import Comparison
from memnet.bench.settings import Settings

WORKS = tuple(CopyWork(batch=4, length=20, slots=slots) for slots in (128, 512, 2048, 8192))


def run(settings: Settings, works: Sequence[CopyWork] = WORKS) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what.
    """
    for work in works:
        yield measure(work, settings)
