"""The end-to-end memory network for one story and one question, in plain loops (Sukhbaatar et al. 2015)."""

import numpy as np


def position_weight(place, width, position, length):
    """l_kj = (1 - j/J) - (k/d)(1 - 2j/J), all counted from 1 (sec. 4.1)."""
    return (1 - position / length) - (place / width) * (1 - 2 * position / length)


def encode(words, matrix, gain=None):
    """sum_j l_j * A x_j; l_j is 1 for a bag of words (``gain`` None). ``matrix`` (word, d) has a row for word 0 too."""
    words = [word for word in words if word != 0]
    total = np.zeros(matrix.shape[1])
    for j, word in enumerate(words, start=1):
        for k in range(1, matrix.shape[1] + 1):
            weight = 1.0 if gain is None else gain * position_weight(k, matrix.shape[1], j, len(words))
            total[k - 1] += weight * matrix[word, k - 1]
    return total


def softmax(scores):
    powers = np.exp(scores - np.max(scores))
    return powers / powers.sum()


def answer(
    story,
    question,
    question_matrix,
    keys,
    values,
    answer_matrix,
    slots,
    gain=None,
    ages=None,
    linear=False,
    linear_map=None,
    rectify=False,
):
    """Logits, and each hop's weights over the slots.

    Args:
        story: lists of words, the oldest sentence first.
        question: list of words.
        question_matrix: B, (word, d).
        keys: for each hop A and T_A; T_A's first row is that of the newest sentence.
        values: for each hop C and T_C.
        answer_matrix: W, (answer, d).
        slots: how many the memory has.
        gain: see ``encode``.
        ages: of each sentence, the newest being 1; as they follow one another if unset.
        linear: whether the hops are without softmax.
        linear_map: H.
        rectify: whether u goes through a ReLU after each hop.
    """
    ages = ages if ages is not None else [len(story) - i for i in range(len(story))]

    def fill(matrix, times):
        rows = [encode(sentence, matrix, gain) + times[age - 1] for sentence, age in zip(story, ages, strict=True)]
        return rows + [np.zeros(matrix.shape[1])] * (slots - len(story))

    u = encode(question, question_matrix, gain)
    looks = []
    for key, value in zip(keys, values, strict=True):
        scores = np.array([u @ row for row in fill(*key)])
        looks.append(scores if linear else softmax(scores))
        read = sum(weight * row for weight, row in zip(looks[-1], fill(*value), strict=True))
        u = (u if linear_map is None else linear_map @ u) + read
        u = np.maximum(u, 0) if rectify else u
    return answer_matrix @ u, np.array(looks)
