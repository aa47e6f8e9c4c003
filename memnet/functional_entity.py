"""The recurrent entity network's equations as pure functions, beside those of ``memnet.functional``.

Henaff, Weston, Szlam, Bordes and LeCun, "Tracking the World State with Recurrent Entity Networks" (2017),
https://arxiv.org/abs/1612.03969. Its w_j are the slots' keys, h_j their contents, s the sentence, g_j the gates.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from memnet.functional import in_full_precision

UNIT_EPS = 1e-10
"""Added to squared norms before their root: contents that are all 0 stay 0 and have a finite gradient."""


def prelu(x: Float[Tensor, "*batch val"], slopes: Float[Tensor, " val"]) -> Float[Tensor, "*batch val"]:
    """phi(x): x where it is positive, elsewhere x times the slope of its place (He et al. 2015, eq. 1)."""
    return slopes * x + (1 - slopes) * x.relu()


@in_full_precision
def candidate(
    memory: Float[Tensor, "batch slot val"],
    recurrent: Float[Tensor, "val val"],
    from_keys: Float[Tensor, "slot val"],
    from_sentence: Float[Tensor, "batch val"],
    slopes: Float[Tensor, " val"],
) -> Float[Tensor, "batch slot val"]:
    """phi(U h_j + V w_j + W s), what each slot would add (eq. 3).

    Args:
        memory: h, the contents.
        recurrent: U.
        from_keys: V w_j, the same at every step.
        from_sentence: W s, of all steps computed at once.
        slopes: of phi.
    """
    offsets = from_keys + rearrange(from_sentence, "batch val -> batch 1 val")
    return prelu(F.linear(memory, recurrent) + offsets, slopes)


@in_full_precision
def gated_add(
    memory: Float[Tensor, "batch slot val"],
    gates: Float[Tensor, "batch slot"],
    added: Float[Tensor, "batch slot val"],
) -> Float[Tensor, "batch slot val"]:
    """h_j + g_j h~_j, brought back to length 1, which is how a slot forgets (eq. 4 and 5).

    Args:
        memory: h, the contents.
        gates: g, how far each slot is open.
        added: h~, the candidates.
    """
    written = torch.addcmul(memory, rearrange(gates, "batch slot -> batch slot 1"), added)
    return written * (written.square().sum(-1, keepdim=True) + UNIT_EPS).rsqrt()
