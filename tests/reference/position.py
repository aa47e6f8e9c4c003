"""Local attention in plain loops, for one sequence, written from Luong, Pham and Manning 2015, sec. 3.2."""

import numpy as np
from reference.attention import dot, softmax


def weights_in_window(scores, length, position, half_window):
    """Eq. 7 over the words of the window [p_t - D, p_t + D]; what lies beyond the sentence is ignored."""
    inside = [s for s in range(length) if position - half_window <= s <= position + half_window]
    weights = np.zeros(len(scores))
    if inside:
        weights[inside] = softmax([scores[s] for s in inside])
    return weights


def local_m(scores, length, step, half_window, slots_per_step):
    """Monotonic: p_t = t, both counted from 0, for sources ``slots_per_step`` as long as targets."""
    return weights_in_window(scores, length, slots_per_step * step, half_window)


def local_p(scores, length, state, matrix, direction, half_window):
    """Predictive: eq. 9, then eq. 10, sigma = D / 2; ``matrix`` is W_p (hidden, state), ``direction`` v_p."""
    hidden = [np.tanh(dot(row, state)) for row in matrix]
    position = length / (1 + np.exp(-dot(direction, hidden)))
    weights = weights_in_window(scores, length, position, half_window)
    for s in range(length):
        weights[s] *= np.exp(-((s - position) ** 2) / (2 * (half_window / 2) ** 2))
    return weights
