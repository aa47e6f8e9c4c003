"""The Differentiable Neural Computer (Graves et al. 2016, Methods) in plain loops, written from the paper.

Everything is for one sequence. What ``memnet.DNC`` says that it does otherwise is done so here: key and write vector
through tanh, the key strength through softplus, ``eps`` in the norms. Several write heads: usage takes them together,
they allocate in turn, each has a link of its own. The parts of Csordas and Schmidhuber (2019) are marked with CS.
"""

from typing import NamedTuple

import numpy as np

from . import ntm
from .ntm import sigmoid, softmax, softplus


class Sizes(NamedTuple):
    num_slots: int
    slot_size: int
    num_read_heads: int
    num_write_heads: int
    mask_content: bool = False
    erase_freed: bool = False
    sharpen_links: bool = False


def retention(free_gates, read_weights):
    psi = np.ones(len(read_weights[0]))
    for i in range(len(psi)):
        for gate, weights in zip(free_gates, read_weights, strict=True):
            psi[i] *= 1 - gate * weights[i]
    return psi


def usage_after_write(usage, write_weights):
    usage = usage.copy()
    for i in range(len(usage)):
        untouched = 1.0
        for weights in write_weights:
            untouched *= 1 - weights[i]
        written = 1 - untouched
        usage[i] = usage[i] + written - usage[i] * written
    return usage


def allocation(usage):
    order = sorted(range(len(usage)), key=lambda i: (usage[i], i))
    weights = np.zeros(len(usage))
    for j, slot in enumerate(order):
        product = 1.0
        for i in range(j):
            product *= usage[order[i]]
        weights[slot] = (1 - usage[slot]) * product
    return weights


def precedence(previous, write_weights):
    return (1 - sum(write_weights)) * previous + write_weights


def temporal_link(link, previous_precedence, write_weights):
    size = len(link)
    new = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            if i != j:
                kept = (1 - write_weights[i] - write_weights[j]) * link[i, j]
                new[i, j] = kept + write_weights[i] * previous_precedence[j]
    return new


def forward_weights(link, read_weights):
    return np.array([sum(link[i, j] * read_weights[j] for j in range(len(link))) for i in range(len(link))])


def backward_weights(link, read_weights):
    return np.array([sum(link[j, i] * read_weights[j] for j in range(len(link))) for i in range(len(link))])


def sharpen_link(weights, sharpness, eps):
    """CS, times the weights' sum."""
    powers = [(w + eps) ** sharpness for w in weights]
    return np.array([sum(weights) * power / sum(powers) for power in powers])


def masked_cosine(key, mask, row, eps):
    """CS."""
    return ntm.cosine(key * mask, row * mask, eps)


def content_weights(take, memory, sizes, eps):
    key, strength = np.tanh(take(sizes.slot_size)), softplus(take(1)[0])
    mask = sigmoid(take(sizes.slot_size)) if sizes.mask_content else np.ones(sizes.slot_size)
    return softmax([strength * masked_cosine(key, mask, row, eps) for row in memory])


def run(parameters, inputs, sizes, memory, norm_eps, sharpen_eps):
    """A whole DNC with an LSTM controller of one layer over one sequence.

    Returns:
        Logits (time, out); weights by "read" and "write", each (time, head, slot); memory, usage, links and precedence
        at the end.
    """
    controller = {name.split("cell.controller.")[-1]: x for name, x in parameters.items() if "controller" in name}
    hidden, cell = np.tanh(controller["initial_hidden"][0]), controller["initial_cell"][0]
    num_slots = sizes.num_slots
    usage = np.zeros(num_slots)
    links = [np.zeros((num_slots, num_slots))] * sizes.num_write_heads
    precedences = [np.zeros(num_slots)] * sizes.num_write_heads
    read_weights = [np.zeros(num_slots)] * sizes.num_read_heads
    reads = [np.tanh(x) for x in parameters["cell.initial_reads"]]
    outputs, trace = [], {"read": [], "write": []}
    for x in inputs:
        hidden, cell = ntm.lstm_layer(np.concatenate([x, *reads]), hidden, cell, controller, 0)
        emitted = list(parameters["cell.access.interface.weight"] @ hidden + parameters["cell.access.interface.bias"])

        def taker(count, source=emitted):
            taken, source[:count] = np.array(source[:count]), []
            return taken

        def part(count, taker=taker):
            rest = list(taker(count))

            def next_numbers(number):
                taken, rest[:number] = np.array(rest[:number]), []
                return taken

            return next_numbers

        by_content = sizes.slot_size + 1 + sizes.slot_size * sizes.mask_content
        write_parts = [part(by_content + 2) for _ in range(sizes.num_write_heads)]
        modes = 1 + 2 * sizes.num_write_heads
        read_parts = [part(by_content + modes + 2 * sizes.sharpen_links) for _ in range(sizes.num_read_heads)]
        erases = [sigmoid(taker(sizes.slot_size)) for _ in range(sizes.num_write_heads)]
        adds = [np.tanh(taker(sizes.slot_size)) for _ in range(sizes.num_write_heads)]
        free_gates = sigmoid(taker(sizes.num_read_heads))
        assert not emitted

        psi = retention(free_gates, read_weights)
        usage = usage * psi
        write_weights, in_turn = [], usage
        for take in write_parts:
            content = content_weights(take, memory, sizes, norm_eps)
            allocation_gate, write_gate = sigmoid(take(2))
            allocated = allocation(in_turn)
            write_weights.append(write_gate * (allocation_gate * allocated + (1 - allocation_gate) * content))
            in_turn = usage_after_write(in_turn, [allocation_gate * write_gate * allocated])
        if sizes.erase_freed:  # CS
            memory = memory * psi[:, None]
        memory = ntm.write(memory, write_weights, erases, adds)
        usage = usage_after_write(usage, write_weights)
        links = [temporal_link(*each) for each in zip(links, precedences, write_weights, strict=True)]
        precedences = [precedence(*each) for each in zip(precedences, write_weights, strict=True)]

        new_read_weights = []
        for take, last in zip(read_parts, read_weights, strict=True):
            content = content_weights(take, memory, sizes, norm_eps)
            pi = softmax(take(modes))
            backward = [backward_weights(link, last) for link in links]
            forward = [forward_weights(link, last) for link in links]
            if sizes.sharpen_links:  # CS
                powers = 1 + softplus(take(2))
                backward = [sharpen_link(weights, powers[0], sharpen_eps) for weights in backward]
                forward = [sharpen_link(weights, powers[1], sharpen_eps) for weights in forward]
            ways = [*backward, content, *forward]
            new_read_weights.append(sum(share * way for share, way in zip(pi, ways, strict=True)))
        read_weights = new_read_weights
        reads = [ntm.read(memory, weights) for weights in read_weights]
        trace["write"].append(write_weights)
        trace["read"].append(read_weights)
        output = parameters["cell.output.weight"] @ np.concatenate([hidden, *reads])
        outputs.append(output + parameters["cell.output.bias"])
    trace = {side: np.array(weights) for side, weights in trace.items()}
    return np.array(outputs), trace, memory, usage, np.array(links), np.array(precedences)
