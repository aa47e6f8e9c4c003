"""Least recently used access (Santoro et al. 2016, sec. 3.2) over one sequence in plain loops, written from the paper.

Heads go beyond the paper, which speaks of n reads: the h-th write head has the h-th least used slot to itself and
writes where the h-th read head has read. Reads come after the write of the same step.
"""

import numpy as np

from tests.reference.ntm import content_weights, read, sigmoid, softplus, write


def step(emissions, memory, usage, last_reads, decay, eps):
    """One step of all heads.

    Args:
        emissions: one for each head: alpha; key and raw key strength; raw erase vector; raw add vector.
        memory: (slot, val).
        usage: w_u of the last step, for each slot.
        last_reads: w_r of the last step, a list of weights for each head; None at the first step.
        decay: gamma.
        eps: added to squared norms.

    Returns:
        Write weights, read weights, what is read, the memory and the usage after the step.
    """
    num_slots = len(memory)
    order = sorted(range(num_slots), key=lambda slot: (usage[slot], slot))
    write_weights = []
    memory = memory.copy()
    for head, (alpha, *_) in enumerate(emissions):
        slot = order[head % num_slots]
        least = np.zeros(num_slots)
        least[slot] = 1  # eq. 6
        gate = sigmoid(alpha) if last_reads is not None else 0.0
        before = last_reads[head] if last_reads is not None else np.zeros(num_slots)
        write_weights.append(gate * before + (1 - gate) * least)  # eq. 7
        memory[slot] = 0
    erases = [sigmoid(erase) for _, _, _, erase, _ in emissions]
    adds = [np.tanh(add) for *_, add in emissions]
    memory = write(memory, write_weights, erases, adds)
    read_weights = [
        content_weights(np.tanh(key), softplus(strength), memory, eps) for _, key, strength, _, _ in emissions
    ]
    reads = [read(memory, weights) for weights in read_weights]
    usage = np.array([decay * u for u in usage])
    for weights in (*write_weights, *read_weights):
        usage = usage + weights  # eq. 5
    return write_weights, read_weights, reads, memory, usage
