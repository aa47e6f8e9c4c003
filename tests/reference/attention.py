"""Scores and normalizers in plain loops, for one query, written from the papers named in ``memnet``'s docstrings."""

import numpy as np


def dot(query, key):
    return sum(q * k for q, k in zip(query, key, strict=True))


def scaled_dot(query, key):
    return dot(query, key) / np.sqrt(len(key))


def general(query, key, matrix):
    """q^T W k with ``matrix`` (query, key)."""
    total = 0.0
    for i, q in enumerate(query):
        for j, k in enumerate(key):
            total += q * matrix[i, j] * k
    return total


def additive(query, key, matrix, bias, direction):
    """v . tanh(W q + b + k) with ``matrix`` (key, query)."""
    total = 0.0
    for j in range(len(key)):
        total += direction[j] * np.tanh(dot(matrix[j], query) + bias[j] + key[j])
    return total


def _project(scores, power):
    """max(s - tau, 0)^power with the tau that makes it sum to 1, found by halving an interval."""
    low, high = min(scores) - 1, max(scores)
    for _ in range(200):
        tau = (low + high) / 2
        low, high = (tau, high) if sum(max(s - tau, 0) ** power for s in scores) > 1 else (low, tau)
    return np.array([max(s - tau, 0) ** power for s in scores])


def sparsemax(scores):
    return _project(scores, 1)


def entmax15(scores):
    """Peters et al. 2019: [(alpha - 1) s - tau]_+ ^ (1 / (alpha - 1)) with alpha = 1.5."""
    return _project([s / 2 for s in scores], 2)


def softmax(scores):
    powers = [np.exp(s) for s in scores]
    return np.array([power / sum(powers) for power in powers])


def top_k(scores, k):
    threshold = sorted(scores)[-k:][0]
    powers = [np.exp(s) if s >= threshold else 0.0 for s in scores]
    return np.array([power / sum(powers) for power in powers])


def hard(scores):
    return np.array([float(s == max(scores)) for s in scores])
