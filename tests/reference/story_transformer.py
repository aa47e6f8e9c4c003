"""The Transformer over sentences for one story and one question, in plain loops over positions and heads."""

import numpy as np

from tests.reference.entity_network import encode
from tests.reference.transformer import add, feed_forward, norm, softmax

BASE = 100


def turned(vector, position):
    """Su et al. 2021, eq. 15: each pair of places is turned by position theta_i; pairs are half a vector apart."""
    half = len(vector) // 2
    result = np.zeros(len(vector))
    for i in range(half):
        angle = position * BASE ** (-i / half)
        x, y = vector[i], vector[i + half]
        result[i] = x * np.cos(angle) - y * np.sin(angle)
        result[i + half] = x * np.sin(angle) + y * np.cos(angle)
    return result


def match(one, other, p):
    """How much what the words that two sentences share tell."""
    return sum(p["word_match.salience"][word - 1] for word in set(one) & set(other))


def attention(xs, p, num_heads, said, bidirectional):
    """What each reads, and the weights (head, asker, slot).

    Each asks those before it and itself; if bidirectional, all sentences and itself.
    """
    size = len(xs[0])
    head_size = size // num_heads
    matrices = np.split(p["layer.attention.projection.weight"], 3)
    weights = np.zeros((num_heads, len(xs), len(xs)))
    outputs = []
    for i, asker in enumerate(xs):
        seen = [j for j in range(len(xs)) if j <= i or (bidirectional and j < len(xs) - 1)]
        reads = []
        for head in range(num_heads):
            rows = slice(head * head_size, (head + 1) * head_size)
            query_matrix, key_matrix, value_matrix = (matrix[rows] for matrix in matrices)
            query = turned(query_matrix @ asker, i)
            keys = [turned(key_matrix @ xs[j], j) for j in seen]
            gain = p["word_match.gains"][head]
            bias = [gain * match(said[i], said[j], p) if j != i else 0 for j in seen]
            found = softmax([query @ key / np.sqrt(head_size) + b for key, b in zip(keys, bias, strict=True)])
            weights[head, i, seen] = found
            reads.append(sum(weight * (value_matrix @ xs[j]) for weight, j in zip(found, seen, strict=True)))
        outputs.append(p["layer.attention.output.weight"] @ np.concatenate(reads))
    return outputs, weights


def run(p, story, question, num_heads, bidirectional=False):
    """The logits, and the weights of each step, (head, asker, slot); the question is the last of the askers.

    Args:
        p: the model's state_dict as arrays.
        story: the words of each sentence.
        question: the question's words.
        num_heads: h.
        bidirectional: whether sentences ask later ones, too.
    """
    words = np.vstack([np.zeros(p["words"].shape[1]), p["words"]])
    xs = [encode(sentence, words, p["sentence_encoding.masks"]) + p["kinds"][0] for sentence in story]
    xs.append(encode(question, words, p["question_encoding.masks"]) + p["kinds"][1])
    xs = [norm(x, p, "encoding_norm") for x in xs]
    trace = []
    for step in p["steps"]:
        xs = [x + step for x in xs]
        askers = [norm(x, p, "layer.attention_norm") for x in xs]
        reads, weights = attention(askers, p, num_heads, [*story, question], bidirectional)
        trace.append(weights)
        xs = add(xs, reads)
        xs = add(xs, [feed_forward(norm(x, p, "layer.feed_forward_norm"), p, "layer.feed_forward") for x in xs])
    return p["output.weight"] @ norm(xs[-1], p, "norm") + p["output.bias"], np.array(trace)
