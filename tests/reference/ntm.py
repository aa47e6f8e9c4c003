"""Equations 2 to 9 of Graves, Wayne and Danihelka (2014) in plain Python loops, written from the paper.

Everything is for one sequence and one head unless it says otherwise. What the paper leaves open follows Collier and
Beel (2018): tanh for keys and add vectors, sigmoid for gates and erase vectors, softplus for the key strength, 1 +
softplus for the sharpening, softmax for the shift. ``eps`` is 0 in the paper; the places where it enters here are those
that ``memnet.functional`` documents.
"""

from typing import NamedTuple

import numpy as np


class Sizes(NamedTuple):
    num_slots: int
    slot_size: int
    num_read_heads: int
    num_write_heads: int
    num_shifts: int


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log(1 + np.exp(x))


def softmax(x):
    powers = [np.exp(value) for value in x]
    return np.array([power / sum(powers) for power in powers])


def cosine(u, v, eps=0.0):
    """Eq. 6."""
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    norm_u = np.sqrt(sum(a * a for a in u) + eps)
    norm_v = np.sqrt(sum(b * b for b in v) + eps)
    return dot / (norm_u * norm_v)


def content_weights(key, strength, memory, eps=0.0):
    """Eq. 5."""
    powers = [np.exp(strength * cosine(key, row, eps)) for row in memory]
    return np.array([power / sum(powers) for power in powers])


def interpolate(content, previous, gate):
    """Eq. 7."""
    return np.array([gate * c + (1 - gate) * p for c, p in zip(content, previous, strict=True)])


def shift(weights, shift_weights):
    """Eq. 8: the paper's s has one number for every slot; here it is 0 but for the allowed shifts around 0."""
    num_slots = len(weights)
    s = np.zeros(num_slots)
    for index, value in enumerate(shift_weights):
        s[(index - len(shift_weights) // 2) % num_slots] += value
    moved = np.zeros(num_slots)
    for i in range(num_slots):
        for j in range(num_slots):
            moved[i] += weights[j] * s[(i - j) % num_slots]
    return moved


def sharpen(weights, sharpening, eps=0.0):
    """Eq. 9."""
    powers = [(w + eps) ** sharpening for w in weights]
    return np.array([power / sum(powers) for power in powers])


def read(memory, weights):
    """Eq. 2."""
    result = np.zeros(memory.shape[1])
    for i, row in enumerate(memory):
        for j, value in enumerate(row):
            result[j] += weights[i] * value
    return result


def write(memory, weights, erases, adds):
    """Eq. 3, then eq. 4, for lists of weights, erase and add vectors: each head erases, then each head adds."""
    memory = memory.copy()
    for w, erase in zip(weights, erases, strict=True):
        for i in range(memory.shape[0]):
            for j in range(memory.shape[1]):
                memory[i, j] *= 1 - w[i] * erase[j]
    for w, add in zip(weights, adds, strict=True):
        for i in range(memory.shape[0]):
            for j in range(memory.shape[1]):
                memory[i, j] += w[i] * add[j]
    return memory


def address(emission, memory, previous, sizes, norm_eps, sharpen_eps):
    """Figure 2 of the paper: content, gate, shift, sharpening. The emission holds k, beta, g, s, gamma, in order."""
    width = sizes.slot_size
    key, strength = np.tanh(emission[:width]), softplus(emission[width])
    gate = sigmoid(emission[width + 1])
    shifts = softmax(emission[width + 2 : width + 2 + sizes.num_shifts])
    sharpening = 1 + softplus(emission[width + 2 + sizes.num_shifts])
    weights = content_weights(key, strength, memory, norm_eps)
    weights = interpolate(weights, previous, gate)
    weights = shift(weights, shifts)
    return sharpen(weights, sharpening, sharpen_eps)


def lstm_layer(x, hidden, cell, p, layer):
    gates = p[f"layers.{layer}.weight_ih"] @ x + p[f"layers.{layer}.bias_ih"]
    gates = gates + p[f"layers.{layer}.weight_hh"] @ hidden + p[f"layers.{layer}.bias_hh"]
    enter, forget, candidate, leave = np.split(gates, 4)
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
    return sigmoid(leave) * np.tanh(cell), cell


def run(parameters, inputs, sizes, memory, norm_eps, sharpen_eps):
    """A whole Neural Turing Machine over one sequence.

    Args:
        parameters: ``memnet.NTM``'s state_dict as arrays; the controller is an LSTM if it has ``weight_ih``.
        inputs: (time, inp).
        sizes: of memory and heads.
        memory: (slot, val) before the first step.
        norm_eps: added to squared norms.
        sharpen_eps: added to weights before they are sharpened.

    Returns:
        Logits (time, out); weights by "read" and "write", each (time, head, slot); the memory at the end.
    """
    controller = {name.split("cell.controller.")[-1]: x for name, x in parameters.items() if "controller" in name}
    num_layers = len({name.split(".")[1] for name in controller if name.startswith("layers")})
    recurrent = "layers.0.weight_ih" in controller
    if recurrent:
        hiddens = [np.tanh(x) for x in controller["initial_hidden"]]
        cells = list(controller["initial_cell"])
    previous = {
        "read": [softmax(x) for x in parameters["cell.access.read_addressing.start.logits"]],
        "write": [softmax(x) for x in parameters["cell.access.write_addressing.start.logits"]],
    }
    reads = [np.tanh(x) for x in parameters["cell.initial_reads"]]
    emit_size = sizes.slot_size + 1 + 1 + sizes.num_shifts + 1
    outputs, trace = [], {"read": [], "write": []}
    for x in inputs:
        x = np.concatenate([x, *reads])
        for layer in range(num_layers):
            if recurrent:
                hiddens[layer], cells[layer] = lstm_layer(x, hiddens[layer], cells[layer], controller, layer)
                x = hiddens[layer]
            else:
                x = np.tanh(controller[f"layers.{layer}.weight"] @ x + controller[f"layers.{layer}.bias"])
        emitted = list(parameters["cell.access.interface.weight"] @ x + parameters["cell.access.interface.bias"])

        def take(count, source=emitted):
            taken, source[:count] = np.array(source[:count]), []
            return taken

        emissions = {
            "write": [take(emit_size) for _ in range(sizes.num_write_heads)],
            "read": [take(emit_size) for _ in range(sizes.num_read_heads)],
        }
        erases = [sigmoid(take(sizes.slot_size)) for _ in range(sizes.num_write_heads)]
        adds = [np.tanh(take(sizes.slot_size)) for _ in range(sizes.num_write_heads)]
        assert not emitted

        for side in ("write", "read"):
            previous[side] = [
                address(emission, memory, before, sizes, norm_eps, sharpen_eps)
                for emission, before in zip(emissions[side], previous[side], strict=True)
            ]
            trace[side].append(previous[side])
            if side == "write":  # so that the reads that follow are of the written memory
                memory = write(memory, previous["write"], erases, adds)
        reads = [read(memory, weights) for weights in previous["read"]]
        outputs.append(parameters["cell.output.weight"] @ np.concatenate([x, *reads]) + parameters["cell.output.bias"])
    return np.array(outputs), {side: np.array(weights) for side, weights in trace.items()}, memory
