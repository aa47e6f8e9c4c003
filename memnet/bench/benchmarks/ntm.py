"""Training step of the Neural Turing Machine by batch and length.

LSTM controller of 100, memory 128 x 20, one read and one write head, as on the paper's copy task: a sequence of L
vectors takes 2 L + 1 time steps. A training step is forward, loss and backward; the optimiser's is listed apart.
"""

from collections.abc import Iterator, Sequence

from memnet.bench.copying import CopyWork, measure
from memnet.bench.measuring import Comparison
from memnet.bench.settings import Settings

WORKS = (
    CopyWork(batch=1, length=20),
    CopyWork(batch=32, length=20),
    CopyWork(batch=256, length=20, threads=2),
    CopyWork(batch=32, length=100),
    CopyWork(batch=32, length=500),
)

GPU_WORKS = (*WORKS, CopyWork(batch=512, length=20))


def run(settings: Settings, works: Sequence[CopyWork] | None = None) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what; by default what the device is for.
    """
    if works is None:
        works = GPU_WORKS if settings.device.type == "cuda" else WORKS
    for work in works:
        yield measure(work, settings)
