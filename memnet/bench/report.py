"""Results for people, as a table, and for programs, as JSON."""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memnet.bench.measuring import Comparison, Row

BUSY = 0.25
"""Load of each core from which on a machine is called busy."""

_UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")),
}


def print_machine(machine: Mapping[str, Any]) -> None:
    """One line on what everything below it was measured on.

    Args:
        machine: what ``machine.describe`` returned.
    """
    where = f"{machine['gpu']}, " if "gpu" in machine else ""
    load = f", load {machine['load'][0]}" if machine["load"] else ""
    print(f"{where}{machine['processor']}, {machine['cores']} cores{load}; torch {machine['torch']}, {machine['date']}")
    if machine["load"] and machine["load"][0] > BUSY * machine["cores"]:
        print("others are at work on this machine, so ratios are rough")


def print_comparisons(name: str, comparisons: Sequence[Comparison]) -> None:
    """One table of a benchmark, and its notes below.

    Args:
        name: the benchmark.
        comparisons: what it has measured; nothing is printed where that is nothing.
    """
    if not comparisons:
        return
    from rich.console import Console  # costs more to import than --help may take
    from rich.table import Table

    rows = [row for comparison in comparisons for row in comparison.rows]
    extra = list(dict.fromkeys(column for row in rows for column in row.extra))
    ratios = {
        "times less": any(row.times_less is not None for row in rows),
        "times floor": any(row.times_floor is not None for row in rows),
    }
    table = Table(title=name, title_justify="left")
    for column in ("work", "way"):
        table.add_column(column)
    for column in ("median", "quartiles", "n", *(title for title, used in ratios.items() if used), *extra):
        table.add_column(column, justify="right")
    for comparison in comparisons:
        table.add_section()
        for number, row in enumerate(comparison.rows):
            cells = ["" if number else comparison.work, row.way, *_measured(row, comparison.unit)]
            shown = {"times less": row.times_less, "times floor": row.times_floor}
            cells += [_ratio(shown[title]) for title, used in ratios.items() if used]
            cells += [f"{row.extra[column]:,.4g}" if column in row.extra else "" for column in extra]
            table.add_row(*cells)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no right margin to wrap at
    console.print(table)
    notes = [note for comparison in comparisons for note in comparison.notes]
    differences = [each.difference for each in comparisons if each.difference is not None]
    if differences:
        notes.append(f"same results in all ways: within {max(differences):.0e} of a tensor's largest number")
    for note in dict.fromkeys(notes):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)


def to_json(machine: Mapping[str, Any], results: Mapping[str, Sequence[Comparison]], complete: bool) -> dict[str, Any]:
    """Everything that was measured, every single turn of it, in seconds and bytes.

    Args:
        machine: what ``machine.describe`` returned.
        results: the benchmarks' comparisons.
        complete: whether all came to their end.
    """
    return {
        "machine": dict(machine),
        "complete": complete,
        "benchmarks": {name: [_comparison(each) for each in own] for name, own in results.items()},
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """What was measured, into a new file.

    Args:
        path: where.
        content: from ``to_json``.

    Raises:
        FileExistsError: there is a file.
        OSError: it cannot be written.
    """
    write_new("json", path, (json.dumps(content, indent=1) + "\n").encode())


def write_new(option: str, path: Path, content: bytes) -> None:
    """Writes a whole file or none, and never over another.

    Args:
        option: what named the file.
        path: where.
        content: what.

    Raises:
        FileExistsError: there is a file.
        OSError: it cannot be written.
    """
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)  # a temporary file is for nobody else's eyes, this one is
        os.link(part, path)  # unlike a move, it fails where there is a file
    except FileExistsError:
        raise FileExistsError(refusal(option, path)) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def refusal(option: str, path: Path) -> str:
    """Why nothing is written.

    Args:
        option: what named the file.
        path: the file that is there.
    """
    return f"--{option} is {path}, which exists and is not overwritten; give another name."


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "work": comparison.work,
        "unit": comparison.unit,
        "rows": [_row(row) for row in comparison.rows],
        "notes": list(comparison.notes),
        "difference": comparison.difference,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "way": row.way,
        "median": row.median,
        "quartiles": list(row.quartiles),
        "times_less": row.times_less,
        "times_floor": row.times_floor,
        **({"extra": dict(row.extra)} if row.extra else {}),
        "samples": list(row.samples),
    }


def _measured(row: Row, unit: str) -> list[str]:
    count = len(row.samples)
    return [
        quantity(row.median, unit),
        " - ".join(quantity(each, unit) for each in row.quartiles) if count > 1 else "",
        str(count),
    ]


def quantity(value: float, unit: str) -> str:
    """As people write it: ``1.5 ms``.

    Args:
        value: a measurement.
        unit: as of a ``Comparison``.
    """
    scales = _UNITS.get(unit, ((1.0, unit),))
    factor, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    return f"{value / factor:.3g} {name}".rstrip()


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}x" if value >= 1000 else f"{value:.3g}x"
