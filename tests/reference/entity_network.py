"""The recurrent entity network for one story and one question, in plain loops (Henaff et al. 2017, sec. 2)."""

import numpy as np

from tests.reference.memn2n import softmax


def encode(words, embedding, masks):
    """s = sum_i f_i * e_i (eq. 1). ``embedding`` (word, d) has a row for word 0 too."""
    total = np.zeros(embedding.shape[1])
    for place, word in enumerate(word for word in words if word != 0):
        for k in range(embedding.shape[1]):
            total[k] += masks[place][k] * embedding[word][k]
    return total


def phi(x, slopes):
    return np.array([value if value > 0 else slope * value for value, slope in zip(x, slopes, strict=True)])


def step(contents, keys, sentence, u, v, w, bias, slopes, gate_biases):
    """One sentence (eq. 2 to 5): the new contents and the gates."""
    updated, gates = [], []
    for h, key, gate_bias in zip(contents, keys, gate_biases, strict=True):
        gate = 1 / (1 + np.exp(-(sentence @ h + sentence @ key + gate_bias)))
        added = phi(u @ h + v @ key + w @ sentence + bias, slopes)
        written = h + gate * added
        updated.append(written / np.sqrt((written**2).sum()))
        gates.append(gate)
    return np.array(updated), np.array(gates)


def answer(contents, question, h, r, slopes):
    """p_j = softmax(q . h_j), o = sum_j p_j h_j, y = R phi(q + H o) (eq. 6): the logits and p."""
    looks = softmax(np.array([question @ content for content in contents]))
    read = sum(look * content for look, content in zip(looks, contents, strict=True))
    return r @ phi(question + h @ read, slopes), looks
