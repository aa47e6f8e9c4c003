"""What the command line asks of every benchmark."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        seconds: how long one comparison is measured, about; at least three turns are taken.
        threads: how many threads the work gets; None: as many as the benchmark's own table says.
        device: where the work is done.
        compiled: whether ways that need ``torch.compile``, which takes a minute, are measured too.
    """

    seconds: float = 5.0
    threads: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compiled: bool = False

    @contextmanager
    def with_threads(self, usual: int = 1) -> Iterator[int]:
        """Gives torch its number of threads within the block.

        Args:
            usual: the benchmark's own number, no more of which are taken than there are cores.
        """
        before = torch.get_num_threads()
        number = self.threads if self.threads is not None else min(usual, cores())
        torch.set_num_threads(number)
        try:
            yield number
        finally:
            torch.set_num_threads(before)

    def say(self, text: str) -> None:
        """Tells whoever waits what is being measured; the results themselves go to the standard output."""
        print(text, file=sys.stderr, flush=True)


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
