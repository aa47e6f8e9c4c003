"""Sparse access memory (Rae et al. 2016) over one sequence in plain loops, and dense: every slot is looked at.

Written from section 3 of the paper. What it leaves open is as ``memnet.SparseAccess`` says: slots enter use in the
order of their index, and only slots in use are read. ``eps`` is added to squared norms.
"""

import numpy as np

from tests.reference.ntm import cosine, sigmoid, softmax, softplus


def step(emissions, state, num_reads, threshold, eps):
    """One step of all heads.

    Args:
        emissions: one for each head: query, what is added, key strength, write gate, interpolation gate, all raw.
        state: memory (slot, val); last weights (head, slot); last access of each slot, 0 for none; in_use; time.
        num_reads: K.
        threshold: delta.
        eps: see above.

    Returns:
        The reads, and the next state.
    """
    memory, last_weights, last_access, in_use, time = state
    num_slots, width = memory.shape
    time = time + 1
    # U^(2): the longest unaccessed first, and of equals the first.
    order = sorted(range(num_slots), key=lambda slot: (last_access[slot], slot))
    least_used = order[: len(emissions)]
    in_use = max(in_use, max(least_used) + 1)

    written = memory.copy()
    for slot in least_used:
        written[slot] = 0
    write_weights = []
    for emission, before, slot in zip(emissions, last_weights, least_used, strict=True):
        add = np.tanh(emission[width : 2 * width])
        write_gate, interpolation = sigmoid(emission[2 * width + 1]), sigmoid(emission[2 * width + 2])
        indicator = np.zeros(num_slots)
        indicator[slot] = 1
        weights = write_gate * (interpolation * before + (1 - interpolation) * indicator)  # eq. 5
        for i in range(num_slots):
            written[i] += weights[i] * add
        write_weights.append(weights)

    reads, read_weights = [], []
    for emission in emissions:
        query, strength = np.tanh(emission[:width]), softplus(emission[2 * width])
        similarity = [cosine(query, written[slot], eps) for slot in range(in_use)]
        nearest = sorted(range(in_use), key=lambda slot: -similarity[slot])[:num_reads]
        weights = np.zeros(num_slots)
        weights[nearest] = softmax([strength * similarity[slot] for slot in nearest])
        reads.append(sum(weights[slot] * written[slot] for slot in nearest))
        read_weights.append(weights)

    last_access = list(last_access)
    for slot in range(num_slots):
        if sum(weights[slot] for weights in (*write_weights, *read_weights)) > threshold:
            last_access[slot] = time
    return reads, (written, read_weights, last_access, in_use, time)


def start(num_slots, width, num_heads):
    return np.zeros((num_slots, width)), [np.zeros(num_slots)] * num_heads, [0] * num_slots, 0, 0
