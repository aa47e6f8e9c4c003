"""How large the pieces are that a program of the GPU's kernel for the Neural Turing Machine works on."""

from typing import Any, NamedTuple

from memnet.kernels.ntm_cell import CellSizes

COLUMNS = 256
"""Of a weight matrix, at most so many at once."""

NUMBERS_OF_A_THREAD = 16
"""Of a weight matrix, at once: enough loads under way at a time, and room for their sums."""


class Sizes(NamedTuple):
    """A cell, and how it is run: what the kernels are compiled for, apart from the tiles that follow from it."""

    cell: CellSizes
    clip: bool

    def of_cell(self) -> dict[str, int]:
        """By the names of the kernels' parameters."""
        cell = self.cell
        return {
            "SLOTS": cell.slots,
            "WIDTH": cell.width,
            "READS": cell.read_heads,
            "WRITES": cell.write_heads,
            "SHIFTS": cell.shifts,
            "HIDDEN": cell.hidden,
            "LAYERS": cell.layers,
            "LSTM": cell.lstm,
            "SLOT_BLOCK": _power_of_2(cell.slots),
            "WIDTH_BLOCK": _power_of_2(cell.width),
            "SHIFT_BLOCK": _power_of_2(cell.shifts),
        }

    def of_forward(self, keep: bool) -> dict[str, Any]:
        """What the forward kernel is compiled for."""
        cell, together = self.cell, 4 if self.cell.lstm else 1  # all four gates at once
        columns = self._columns(cell.hidden, COLUMNS // 2)
        emission_columns = self._columns(self.interface)
        return self.of_cell() | {
            "KEEP": keep,
            "ROWS": self._rows(columns * together, max(cell.hidden, self.reads)),
            "COLUMNS": columns,
            "EMISSION_ROWS": self._rows(emission_columns, cell.hidden),
            "EMISSION_COLUMNS": emission_columns,
            "num_warps": self.warps,
        }

    def of_backward(self) -> dict[str, Any]:
        """What the backward kernel is compiled for."""
        cell = self.cell
        hidden_columns = self._columns(cell.hidden)
        columns = self._columns(max(cell.hidden, self.reads) + (cell.hidden if cell.lstm else 0))
        return self.of_cell() | {
            "CLIP": self.clip,
            "HIDDEN_ROWS": self._rows(hidden_columns, self.interface),
            "HIDDEN_COLUMNS": hidden_columns,
            "ROWS": self._rows(columns, self.gates),
            "COLUMNS": columns,
            "num_warps": self.warps,
        }

    @property
    def reads(self) -> int:
        """Numbers read in a step."""
        return self.cell.read_heads * self.cell.width

    @property
    def gates(self) -> int:
        """Of one layer."""
        return self.cell.hidden * (4 if self.cell.lstm else 1)

    @property
    def interface(self) -> int:
        """Numbers emitted in a step."""
        return self.cell.parameter_shapes()[-4][0]

    @property
    def padded_memory(self) -> int:
        """Numbers of a memory as Triton holds it."""
        return _power_of_2(self.cell.slots) * _power_of_2(self.cell.width)

    @property
    def warps(self) -> int:
        """Of one program; 32 threads each."""
        most = max(self.padded_memory, 16 * _power_of_2(self.cell.hidden))
        return 4 if most <= 1024 else 8 if most < 4096 else 16

    def _columns(self, count: int, most: int | None = None) -> int:
        return min(_power_of_2(count), COLUMNS if most is None else most)

    def _rows(self, columns: int, count: int) -> int:
        return min(_power_of_2(count), max(1, 32 * self.warps * NUMBERS_OF_A_THREAD // columns))


def _power_of_2(number: int) -> int:
    """The next one."""
    return 1 << (number - 1).bit_length()
