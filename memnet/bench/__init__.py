"""``memnet bench``: speed and memory, as ratios measured in one run.

Times from shared machines are noise, and times from different machines say nothing about code. So a benchmark builds
the same work in several ways in one process, makes sure that they compute the same, times them in turns (A B C A B C
...), and compares their medians with each other and with a floor: what the work needs in any case, timed alone in the
same turns (see ``memnet.bench.floors``).

Adding a benchmark
    Put one file into ``memnet/bench/benchmarks/``. Its name, with dashes for underscores, is the benchmark's; the first
    line of its docstring is what ``memnet bench --help`` says of it; and it has one function::

        def run(settings: Settings) -> Iterator[Comparison]

    which yields a ``Comparison`` for each piece of work as soon as it is measured, so that Ctrl-C loses only the one
    under way. ``compare`` makes one out of several ways and the parts of a floor. Nothing has to be registered.
    ``benchmarks/date.py`` is an example. Files of this package import neither Lightning nor rich outside functions.
"""

from memnet.bench.measuring import Comparison, Row, Way, compare
from memnet.bench.settings import Settings

__all__ = ["Comparison", "Row", "Settings", "Way", "compare"]
