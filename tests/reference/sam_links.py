"""Sparse access memory with links over one sequence, in plain loops: weights over all slots, chains as lists.

As ``memnet.sparse_links`` says: a head's weights are pi_1 b + pi_2 c + pi_3 f (DNC), the K largest are kept and
sharpened (NTM eq. 9). Writing and reading by content are those of ``tests.reference.sam``.
"""

from itertools import pairwise

import numpy as np

from tests.reference import sam
from tests.reference.ntm import softmax, softplus


def step(emissions, state, chains, num_reads, threshold, eps, sharpen_eps):
    """One step of all heads.

    Args:
        emissions: one for each head: those of ``sam.step``, then three read modes and the power of sharpening, raw.
        state: as there.
        chains: of each head, the slots that it took, the oldest first.
        num_reads: K.
        threshold: delta.
        eps: as there.
        sharpen_eps: added to the weights before they are raised to a power.

    Returns:
        The reads, the next state, and the next chains.
    """
    memory, last_weights, last_access, in_use, time = state
    num_slots = len(memory)
    order = sorted(range(num_slots), key=lambda slot: (last_access[slot], slot))
    chains = [list(chain) for chain in chains]
    for chain, slot in zip(chains, order, strict=False):
        if not chain:
            chain.append(slot)
        elif chain[-1] != slot:
            for other in chains:
                cut(other, slot)
            chain.append(slot)

    plain = [emission[:-4] for emission in emissions]
    _, (written, contents, _, in_use, time) = sam.step(plain, state, num_reads, threshold, eps)
    reads, read_weights = [], []
    for emission, content, before in zip(emissions, contents, last_weights, strict=True):
        backward, by_content, forward = softmax(emission[-4:-1])
        weights = by_content * content
        for slot in range(num_slots):
            for chain in chains:
                for first, second in pairs(chain):
                    weights[second] += forward * before[slot] * (first == slot)
                    weights[first] += backward * before[slot] * (second == slot)
        kept = [slot for slot in sorted(range(num_slots), key=lambda slot: -weights[slot])[:num_reads] if weights[slot]]
        powers = np.zeros(num_slots)
        powers[kept] = (weights[kept] + sharpen_eps) ** (1 + softplus(emission[-1]))
        weights = powers / powers.sum()
        reads.append(weights @ written)
        read_weights.append(weights)

    last_access = list(last_access)
    touched = [*write_weights(plain, last_weights, order), *read_weights]
    for slot in range(num_slots):
        if sum(weights[slot] for weights in touched) > threshold:
            last_access[slot] = time
    return reads, (written, read_weights, last_access, in_use, time), chains


def cut(chain, slot):
    """Takes a slot out: ``GAP`` stays, so that its neighbours are none of one another."""
    chain[:] = [GAP if other == slot else other for other in chain]


GAP = -1


def pairs(chain):
    """A slot and the next one, where no slot was taken out between them."""
    return [(a, b) for a, b in pairwise(chain) if GAP not in (a, b)]


def write_weights(emissions, last_weights, least_used):
    found = []
    for emission, before, slot in zip(emissions, last_weights, least_used, strict=False):
        write_gate, interpolation = 1 / (1 + np.exp(-emission[-2:]))
        indicator = np.zeros(len(before))
        indicator[slot] = 1
        found.append(write_gate * (interpolation * before + (1 - interpolation) * indicator))
    return found
