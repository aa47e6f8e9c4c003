"""``memnet bench``."""

import argparse
import difflib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from memnet.bench import benchmarks, machine, report
from memnet.bench.measuring import Comparison
from memnet.bench.settings import Settings

DESCRIPTION = """\
Measures speed and memory. Each benchmark does the same work in several ways,
taking turns in one process, and prints medians, how many times less each way
takes than the first one ("times less"), and how many times the floor, which is
what the work's matrix products and memory passes need alone ("times floor").
Only ratios of one run mean anything: leave the machine alone meanwhile.
"""


class UsageError(ValueError):
    """The command line is at fault."""

    exit_code = 2


def run(arguments: Sequence[str]) -> None:
    """Runs ``memnet bench``.

    Args:
        arguments: the command line, beginning with ``bench``.

    Raises:
        UsageError: the command line is not understood; the message is one sentence.
        ValueError: ways that should do the same work do not.
        OSError: the JSON file or the picture cannot be written, or is there already.
        KeyboardInterrupt: on Ctrl-C, after what was measured has been printed and written.
        SystemExit: after ``--help``.
    """
    given = _parser().parse_args(arguments[1:])
    names = _checked_names(given.names)
    settings = Settings(given.seconds, given.threads, _device(given.device), given.compile)
    path, picture = _checked_path("json", given.json), _checked_path("plot", given.plot)
    described = machine.describe(settings)
    report.print_machine(described)
    results: dict[str, list[Comparison]] = {}
    complete = False
    try:
        for name in names:
            settings.say(f"measuring {name}")
            _measure(name, settings, results.setdefault(name, []))
        complete = True
    finally:
        if path is not None:
            report.write_json(path, report.to_json(described, results, complete))
            print(f"written to {path}")
        if picture is not None:
            _draw(results, picture)


def _measure(name: str, settings: Settings, into: list[Comparison]) -> None:
    try:
        for comparison in benchmarks.load(name).run(settings):
            into.append(comparison)
    finally:
        report.print_comparisons(name, into)


def _draw(results: dict[str, list[Comparison]], path: Path) -> None:
    from memnet.bench import pictures  # matplotlib costs more to import than --help may take

    figure = pictures.draw(results)
    if figure is None:
        print("nothing is drawn: no two works differ in size only")
        return
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=pictures.DOTS_PER_INCH)
    report.write_new("plot", path, content.getvalue())
    print(f"drawn in {path}")


def _checked_names(given: list[str]) -> list[str]:
    known = benchmarks.names()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(known)}."
            raise UsageError(f"there is no benchmark {name}; {hint}")
    return list(dict.fromkeys(given)) or known


def _checked_path(option: str, given: str | None) -> Path | None:
    """Refuses now what could not be written in an hour."""
    if given is None:
        return None
    path = Path(given)
    if path.exists() or path.is_symlink():
        raise FileExistsError(report.refusal(option, path))
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(f"--{option} is {path}, but {path.parent} is no folder that can be written.")
    return path


def _device(given: str) -> torch.device:
    if given == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device is cuda, but torch finds no GPU here; use --device cpu.")
    return torch.device("cuda" if given == "auto" and torch.cuda.is_available() else given.replace("auto", "cpu"))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see memnet bench --help.")


def _parser() -> argparse.ArgumentParser:
    listed = {name: benchmarks.summary(name) for name in benchmarks.names()}
    width = max(map(len, listed))
    parser = _Parser(
        prog="memnet bench",
        description=DESCRIPTION,
        epilog="benchmarks:\n" + "\n".join(f"  {name:<{width}}  {text}" for name, text in listed.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="which benchmarks; all by default")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured to this new file as well")
    parser.add_argument("--plot", metavar="FILE", help="draw how time and memory grow with size as this new PNG file")
    parser.add_argument("--threads", metavar="N", type=_positive(int), help="threads; by default what a row says")
    parser.add_argument(
        "--seconds", metavar="S", type=_positive(float), default=5.0, help="time for each comparison; %(default)g"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto, the default: a GPU if there is one"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also measure cells under torch.compile, which takes minutes"
    )
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    def parse(text: str) -> int | float:
        try:
            value: int | float = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a positive number")
        return value

    return parse
