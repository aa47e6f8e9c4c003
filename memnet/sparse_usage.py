"""Which slots of a large memory were accessed longest ago, without a look at all of them at every step."""

import torch
from jaxtyping import Int64
from torch import Tensor

from memnet.functional_sparse import least_recently_used

FIRST_LOOK = 32
"""How many slots of the order are looked at first; four times as many whenever that was not enough."""


class AccessOrder:
    """Gives what ``least_recently_used`` gives, for steps that follow one another.

    All slots are sorted by their last access once. From then on the least recently used ones are the first in this
    order that have not been accessed since. When there are no longer enough of them, slots are sorted anew: the rarer
    the more slots there are.
    """

    def __init__(self) -> None:
        self._order: Int64[Tensor, "batch slot"] | None = None

    def least_recently_used(
        self,
        last_access: Int64[Tensor, "batch slot"],
        prev_least_used: Int64[Tensor, "batch head"],
        in_use: Int64[Tensor, " batch"],
    ) -> Int64[Tensor, "batch head"]:
        """The arguments are those of ``memnet.functional_sparse.least_recently_used``."""
        num_heads, num_slots = prev_least_used.shape[1], last_access.shape[1]
        if int(in_use.max()) + num_heads <= num_slots:  # some are free
            return least_recently_used(last_access, prev_least_used, in_use)
        found = None if self._order is None else self._next(last_access, num_heads)
        if found is None:
            self._order = last_access.argsort(dim=1, stable=True)
            self._sorted_at = last_access.amax(1)
            self._begin = torch.zeros_like(in_use)
            found = self._order[:, :num_heads]
        return found

    def _next(self, last_access: Tensor, num_heads: int) -> Tensor | None:
        assert self._order is not None
        num_slots = last_access.shape[1]
        look = max(FIRST_LOOK, num_heads)
        while True:
            places = self._begin[:, None] + torch.arange(look, device=last_access.device)
            slots = self._order.gather(1, places.clamp_max(num_slots - 1))
            untouched = (last_access.gather(1, slots) <= self._sorted_at[:, None]) & (places < num_slots)
            count = untouched.cumsum(1)
            if bool((count[:, -1] >= num_heads).all()):
                break
            if look >= num_slots:
                return None
            look *= 4
        self._begin = self._begin + (count < 1).sum(1)
        wanted = torch.arange(1, num_heads + 1, device=last_access.device)
        return slots.gather(1, torch.searchsorted(count, wanted.expand(len(count), -1).contiguous()))
