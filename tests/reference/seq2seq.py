"""Recurrent encoder-decoders for one sequence in plain loops: LSTM, GRU, and the three decoders of Saito's textbook.

"Deep Learning from Scratch 2", chapters 7 and 8. ``parameters`` are a module's own by name, those of a layer begin with
``prefix`` and end with ``suffix`` ("_reverse" for the direction from the end to the beginning).
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(scores):
    powers = np.exp(scores - np.max(scores))
    return powers / powers.sum()


def lstm_step(x, state, weights):
    """Gates in PyTorch's order: input, forget, candidate, output."""
    hidden, cell = state
    w_x, w_h, b_x, b_h = weights
    i, f, g, o = np.split(w_x @ x + b_x + w_h @ hidden + b_h, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def gru_step(x, state, weights):
    """Gates in PyTorch's order: reset, update, candidate."""
    (hidden,) = state
    w_x, w_h, b_x, b_h = weights
    (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(w_x @ x + b_x, 3), np.split(w_h @ hidden + b_h, 3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    return ((1 - z) * np.tanh(n_x + r * n_h) + z * hidden,)


def layer_weights(parameters, prefix, suffix=""):
    return [parameters[f"{prefix}.{name}_l0{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def run_layer(inputs, state, weights):
    """Hidden states of all steps, and the last state: (h, c) of an LSTM, (h,) of a GRU."""
    step = lstm_step if len(state) == 2 else gru_step
    outputs = []
    for x in inputs:
        state = step(x, state, weights)
        outputs.append(state[0])
    return outputs, state


def zeros(parameters, prefix, num_parts):
    return (np.zeros(parameters[f"{prefix}.weight_hh_l0"].shape[1]),) * num_parts


def encode(parameters, source, num_parts, reverse):
    """hs in the order of the source, and the last state, of ``RecurrentEncoder`` with one layer."""
    prefix = "encoder.stack.units.0"
    vectors = [parameters["encoder.embedding.weight"][symbol] for symbol in source]
    order = -1 if reverse else 1
    weights = layer_weights(parameters, prefix)
    outputs, state = run_layer(vectors[::order], zeros(parameters, prefix, num_parts), weights)
    return outputs[::order], state


def attend(hs, h):
    """The textbook's weighted sum: a = softmax(hs . h), c = sum_i a_i hs_i (section 8.1)."""
    scores = []
    for encoded in hs:
        score = 0.0
        for i in range(len(h)):
            score += encoded[i] * h[i]
        scores.append(score)
    weights = softmax(np.array(scores))
    context = np.zeros(len(hs[0]))
    for weight, encoded in zip(weights, hs, strict=True):
        context += weight * encoded
    return context, weights


def decode(parameters, target_in, hs, state, kind):
    """Logits of all steps, and the weights over the source of each.

    kind: "plain", "peeky" (the encoder's last hidden state beside every input of the decoder and of the output layer),
    "attention", or "feeding" (attention whose last context is beside every input of the decoder).
    """
    weights = layer_weights(parameters, "decoder.stack.units.0")
    last, context = state[0], np.zeros(len(hs[0]))
    logits, alignment = [], []
    for symbol in target_in:
        x = parameters["decoder.embedding.weight"][symbol]
        beside = {"peeky": [last], "feeding": [context]}.get(kind, [])
        (features,), state = run_layer([np.concatenate([x, *beside])], state, weights)
        if kind == "peeky":
            features = np.concatenate([features, last])
        elif kind in ("attention", "feeding"):
            context, row = attend(hs, features)
            features = np.concatenate([features, context])
            alignment.append(row)
        logits.append(parameters["decoder.output.weight"] @ features + parameters["decoder.output.bias"])
    return np.array(logits), np.array(alignment)
