"""The Neural Turing Machine with every start learned, as in the paper; by default memnet starts its heads at slot 0."""

from typing import Any

from memnet import NTM, ContentAddressing, CosineScore, LearnedWeights, LocationAddressing
from memnet.functional import NORM_EPS


def paper_ntm(
    input_size: int,
    output_size: int,
    num_slots: int,
    slot_size: int,
    num_read_heads: int = 1,
    num_write_heads: int = 1,
    num_shifts: int = 3,
    norm_eps: float = NORM_EPS,
    **settings: Any,
) -> NTM:
    """An NTM whose heads' first weights are parameters."""

    def addressing(num_heads: int) -> LocationAddressing:
        content = ContentAddressing(CosineScore(slot_size, norm_eps))
        return LocationAddressing(content, num_shifts, LearnedWeights(num_heads, num_slots))

    return NTM(
        input_size,
        output_size,
        num_slots,
        slot_size,
        num_read_heads,
        num_write_heads,
        read_addressing=addressing(num_read_heads),
        write_addressing=addressing(num_write_heads),
        **settings,
    )
