"""The Transformer in plain loops over positions and heads, for one pair of sequences, written from Vaswani et al. 2017.

It normalises before each sub-layer and at the end of each stack. Matrices are (output, input), as in a state_dict.
"""

import numpy as np

EPS = 1e-5  # torch.nn.LayerNorm's


def position_encoding(position, size):
    """Sec. 3.5."""
    code = np.zeros(size)
    for column in range(size):
        angle = position / 10000 ** ((column - column % 2) / size)
        code[column] = np.cos(angle) if column % 2 else np.sin(angle)
    return code


def embed(matrix, symbols):
    size = matrix.shape[1]
    return [np.sqrt(size) * matrix[symbol] + position_encoding(i, size) for i, symbol in enumerate(symbols)]


def norm(x, p, name):
    x = (x - x.mean()) / np.sqrt(x.var() + EPS)
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def softmax(scores):
    powers = [np.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def attention(askers, contents, p, name, num_heads, causal):
    """Eq. 1 and sec. 3.2.2: what each asker reads, and the weights (head, asker, slot)."""
    size = len(askers[0])
    head_size = size // num_heads
    matrices = np.split(p[f"{name}.projection.weight"], 3)
    weights = np.zeros((num_heads, len(askers), len(contents)))
    outputs = []
    for i, asker in enumerate(askers):
        slots = contents[: i + 1] if causal else contents
        reads = []
        for head in range(num_heads):
            rows = slice(head * head_size, (head + 1) * head_size)
            query_matrix, key_matrix, value_matrix = (matrix[rows] for matrix in matrices)
            query = query_matrix @ asker
            found = softmax([query @ (key_matrix @ slot) / np.sqrt(head_size) for slot in slots])
            weights[head, i, : len(slots)] = found
            reads.append(sum(weight * (value_matrix @ slot) for weight, slot in zip(found, slots, strict=True)))
        outputs.append(p[f"{name}.output.weight"] @ np.concatenate(reads))
    return outputs, weights


def feed_forward(x, p, name):
    """Eq. 2."""
    hidden = np.maximum(0, p[f"{name}.inner.weight"] @ x + p[f"{name}.inner.bias"])
    return p[f"{name}.outer.weight"] @ hidden + p[f"{name}.outer.bias"]


def add(xs, ys):
    return [x + y for x, y in zip(xs, ys, strict=True)]


def run(p, source, target_in, num_heads):
    """Logits (time, vocab), and all weights by the name of their addressing, each (head, asker, slot).

    Args:
        p: the model's state_dict as arrays.
        source: symbols.
        target_in: symbols.
        num_heads: h.
    """
    trace = {}

    def attend(xs, contents, name, causal=False):
        reads, trace[f"{name}.addressing"] = attention(xs, contents, p, name, num_heads, causal)
        return reads

    xs = embed(p["source_embedding.weight"], source)
    for layer in range(len({name.split(".")[1] for name in p if name.startswith("encoder_layers")})):
        name = f"encoder_layers.{layer}"
        normed = [norm(x, p, f"{name}.attention_norm") for x in xs]
        xs = add(xs, attend(normed, normed, f"{name}.attention"))
        xs = add(xs, [feed_forward(norm(x, p, f"{name}.feed_forward_norm"), p, f"{name}.feed_forward") for x in xs])
    memory = [norm(x, p, "encoder_norm") for x in xs]

    xs = embed(p["target_embedding.weight"], target_in)
    for layer in range(len({name.split(".")[1] for name in p if name.startswith("decoder_layers")})):
        name = f"decoder_layers.{layer}"
        normed = [norm(x, p, f"{name}.target_norm") for x in xs]
        xs = add(xs, attend(normed, normed, f"{name}.target_attention", causal=True))
        normed = [norm(x, p, f"{name}.source_norm") for x in xs]
        xs = add(xs, attend(normed, memory, f"{name}.source_attention"))
        xs = add(xs, [feed_forward(norm(x, p, f"{name}.feed_forward_norm"), p, f"{name}.feed_forward") for x in xs])
    return np.array([p["output.weight"] @ norm(x, p, "decoder_norm") for x in xs]), trace
