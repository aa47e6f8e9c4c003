"""Rotary position encoding (Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor


def rotary_encoding(
    positions: Int64[Tensor, "batch time"], size: int, base: float, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "wave batch time half"]:
    """cos(m theta_i) and sin(m theta_i) with theta_i = base^(-2 (i - 1) / size), i = 1 to size / 2 (sec. 3.2.2).

    Args:
        positions: m.
        size: width of the vectors to be rotated, an even number.
        base: 10000 in the paper; the longest wave has a length of nearly 2 pi base.
        dtype: of the result.
    """
    even = torch.arange(0, size, 2, dtype=dtype, device=positions.device)
    angles = rearrange(positions, "batch time -> batch time 1") * base ** (-even / size)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(
    vectors: Float[Tensor, "batch head time width"], encoding: Float[Tensor, "wave batch time half"]
) -> Float[Tensor, "batch head time width"]:
    """Turns place i and place i + width / 2 of each vector, as one point of a plane, by m theta_i (eq. 34).

    The product of two vectors so turned depends on how far apart they stand, and not on where. The paper turns
    neighbouring places; which of them form a pair is for the projection before it to learn.

    Args:
        vectors: of all heads.
        encoding: from ``rotary_encoding``.
    """
    cos, sin = rearrange(encoding, "wave batch time half -> wave batch 1 time half")
    x, y = vectors.chunk(2, -1)
    return torch.cat([x * cos - y * sin, x * sin + y * cos], -1).to(vectors.dtype)
