"""RMSProp of Graves (2013), eq. 38 to 41, for one weight."""

import math


def graves_rmsprop(weight, gradients, lr, alpha, momentum, eps):
    """The weight after each of the gradients."""
    n = m = step = 0.0
    weights = []
    for gradient in gradients:
        n = alpha * n + (1 - alpha) * gradient * gradient
        m = alpha * m + (1 - alpha) * gradient
        step = momentum * step - lr * gradient / math.sqrt(n - m * m + eps)
        weight = weight + step
        weights.append(weight)
    return weights
