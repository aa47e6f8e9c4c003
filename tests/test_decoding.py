"""Decoding over made-up step functions whose every answer can be worked out without it."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

from memnet.decoding import BOS, EOS, PAD, UNK, search

INF = math.inf


class Prefix(NamedTuple):
    """What a step has seen so far, the row of the item it belongs to, and something it never changes."""

    symbols: torch.Tensor
    memory: torch.Tensor
    nothing: None = None


class TablesOfPrefixes:
    """A model without parameters: logits and weights are a fixed random function of the item and the whole prefix."""

    def __init__(self, vocab_size, max_length, num_items=1, source=3, possible=None, end_bias=0.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.vocab_size, self.num_items = vocab_size, num_items
        self.logits = [
            2 * torch.randn(num_items, vocab_size**length, vocab_size, generator=generator, dtype=torch.float64)
            for length in range(max_length)
        ]
        for table in self.logits:
            table[..., EOS] += end_bias
            if possible is not None:
                table[..., [symbol for symbol in range(vocab_size) if symbol not in possible]] = -INF
        self.weights = [torch.rand(*table.shape[:2], source, generator=generator) for table in self.logits]

    def state(self, items=None):
        items = torch.arange(self.num_items) if items is None else torch.tensor(items)
        return Prefix(torch.zeros(len(items), 0, dtype=torch.int64), items)

    def step(self, tokens, state):
        symbols = torch.cat([state.symbols, tokens[:, None]], 1)
        item, length = state.memory, symbols.shape[1] - 1
        index = sum(symbols[:, 1 + place] * self.vocab_size**place for place in range(length)) + torch.zeros_like(item)
        return self.logits[length][item, index], self.weights[length][item, index], state._replace(symbols=symbols)

    def score(self, item, sequence):
        """log P of one sequence, and the weights at each of its symbols."""
        state, last, total, weights = self.state([item]), BOS, 0.0, []
        for symbol in sequence:
            logits, looked, state = self.step(torch.tensor([last]), state)
            total += logits.log_softmax(-1)[0, symbol].item()
            weights.append(looked[0])
            last = symbol
        return total, torch.stack(weights)


def run(model, items=None, **options):
    state = model.state(items)
    return search(model.step, state, len(state.memory), model.vocab_size, device="cpu", **options)


def sequence_of(row):
    """The symbols up to and with EOS, or all of them."""
    row = row.tolist()
    return row[: row.index(EOS) + 1] if EOS in row else row


def all_sequences(symbols, max_length):
    """Those that end, and those that are cut off at the greatest length."""
    for length in range(max_length):
        for body in itertools.product(symbols, repeat=length):
            yield [*body, EOS]
    yield from map(list, itertools.product(symbols, repeat=max_length))


@pytest.mark.parametrize("end_bias", [-2.0, 1.0])
def test_greedy_takes_the_best_symbol_at_every_step(end_bias):
    model = TablesOfPrefixes(6, 5, num_items=4, end_bias=end_bias)
    generation = run(model, max_length=5)
    lengths = []
    for item in range(4):
        sequence, state, last = [], model.state([item]), BOS
        while len(sequence) < 5 and last != EOS:
            logits, _, state = model.step(torch.tensor([last]), state)
            last = max(range(EOS, 6), key=lambda symbol, logits=logits: logits[0, symbol])
            sequence.append(last)
        assert sequence_of(generation.tokens[item]) == sequence
        lengths.append(len(sequence))
    assert len(set(lengths)) > 1
    assert generation.tokens.shape[1] == max(lengths)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
def test_a_beam_of_one_is_greedy(seed, length_penalty):
    """So is a wider beam where only the best symbol is possible: the search by beams, too, comes down to greedy."""
    model = TablesOfPrefixes(5, 4, num_items=3, seed=seed)
    greedy = run(model, max_length=4)

    def narrow(tokens, state):
        logits, weights, state = model.step(tokens, state)
        best = logits[:, EOS:].argmax(-1, keepdim=True) + EOS
        return torch.full_like(logits, -INF).scatter(1, best, 0.0), weights, state

    wide = search(narrow, model.state(), 3, 5, device="cpu", max_length=4, beam_size=2, length_penalty=length_penalty)
    one = run(model, max_length=4, beam_size=1, length_penalty=length_penalty)
    assert torch.equal(one.tokens, greedy.tokens)
    assert torch.equal(one.weights, greedy.weights)
    assert torch.equal(wide.tokens, greedy.tokens)
    assert torch.equal(wide.weights, greedy.weights)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("beam_size", [2, 3, 6])
def test_a_batch_of_beams_is_the_beams_one_by_one(beam_size, length_penalty):
    model = TablesOfPrefixes(6, 5, num_items=6, end_bias=0.5)
    options = {"max_length": 5, "beam_size": beam_size, "length_penalty": length_penalty}
    together = run(model, **options)
    lengths = set()
    for item in range(6):
        alone = run(model, [item], **options)
        length = alone.tokens.shape[1]
        lengths.add(length)
        assert torch.equal(together.tokens[item, :length], alone.tokens[0])
        assert torch.equal(together.weights[item, :length], alone.weights[0])
        assert not together.tokens[item, length:].any()
        assert not together.weights[item, length:].any()
    assert len(lengths) > 1


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("end_bias", [-1.0, 1.0])
def test_a_large_enough_beam_finds_the_best_of_all_sequences(length_penalty, end_bias):
    """Two symbols and the end: 12 candidates at most before the last step, so that none is lost.

    The other symbols of the vocabulary, which is as large as the beam, are impossible.
    """
    num_items, max_length, symbols = 8, 4, [UNK, 4]
    model = TablesOfPrefixes(16, max_length, num_items, possible=[EOS, *symbols], end_bias=end_bias)
    generation = run(model, max_length=max_length, beam_size=16, length_penalty=length_penalty)
    for item in range(num_items):

        def rating(sequence, item=item):
            return model.score(item, sequence)[0] / ((5 + len(sequence)) / 6) ** length_penalty

        best = max(all_sequences(symbols, max_length), key=rating)
        assert sequence_of(generation.tokens[item]) == best


def test_a_beam_finds_what_greedy_misses():
    """Greedy: UNK, then one of two symbols of probability 0.3. Better: 4, then a sure end."""

    def step(tokens, state):
        table = torch.full((3, 6), 1e-9)
        table[0, [UNK, 4]] = torch.tensor([0.55, 0.45])
        table[1, [UNK, 4, 5, EOS]] = torch.tensor([0.2, 0.3, 0.2, 0.3])
        table[2, EOS] = 1.0
        kind = torch.where(tokens == BOS, 0, torch.where(tokens == UNK, 1, 2))
        return table[kind].log(), None, state

    options = {"device": "cpu", "length_penalty": 0.0, "max_length": 3}
    assert search(step, None, 1, 6, **options).tokens[0, 0] == UNK
    generation = search(step, None, 1, 6, beam_size=2, **options)
    assert generation.tokens.tolist() == [[4, EOS]]
    assert generation.weights is None


@pytest.mark.parametrize(("short", "long"), [(0.5, 0.3), (0.5, 0.45), (0.9, 0.1)])
def test_length_penalty_turns_where_the_formula_says(short, long):
    """Two sequences only: EOS at once, or five symbols and then EOS. log p / (6/6)^a against log q / (11/6)^a."""

    def step(tokens, state):
        logits = torch.full((len(tokens), 5), -INF)
        first, last = tokens == BOS, state[:, 0] == 5
        logits[first, EOS], logits[first, 4] = math.log(short), math.log(long)
        logits[~first & last, EOS] = 0.0
        logits[~first & ~last, 4] = 0.0
        return logits, None, state + 1

    def written(length_penalty):
        state = torch.zeros(1, 1, dtype=torch.int64)
        generation = search(step, state, 1, 5, device="cpu", max_length=8, beam_size=3, length_penalty=length_penalty)
        return generation.tokens[0].tolist()

    # The logits are not quite normalized: log p and log q are after the softmax.
    p, q = short / (short + long), long / (short + long)
    turn = math.log(math.log(q) / math.log(p)) / math.log(11 / 6)
    assert turn > 0
    assert written(turn - 0.01) == [EOS]
    assert written(turn + 0.01) == [4] * 5 + [EOS]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_what_has_not_ended_is_returned_as_it_is(beam_size):
    model = TablesOfPrefixes(6, 4, num_items=3, possible=[UNK, 4, 5])
    generation = run(model, max_length=4, beam_size=beam_size)
    assert generation.tokens.shape == (3, 4)
    assert generation.weights.shape == (3, 4, 3)
    assert (generation.tokens >= UNK).all()
    assert (generation.weights.sum(-1) > 0).all()


@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_end_mark_counts_and_padding_follows(beam_size):
    """Item i ends after i symbols of 4; max_length 3 cuts the last one off."""

    def step(tokens, state):
        logits = torch.full((len(tokens), 6), -50.0)
        logits[torch.arange(len(tokens)), torch.where(state[:, 0] == 0, EOS, 4)] = 0.0
        return logits, torch.ones(len(tokens), 2), state - 1

    state = torch.arange(4)[:, None]
    generation = search(step, state, 4, 6, device="cpu", max_length=3, beam_size=beam_size)
    assert generation.tokens.tolist() == [[EOS, PAD, PAD], [4, EOS, PAD], [4, 4, EOS], [4, 4, 4]]
    assert generation.weights[:, :, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("beam_size", [1, 2])
def test_the_loop_stops_when_all_have_ended(beam_size):
    calls = []

    def step(tokens, state):
        calls.append(len(tokens))
        logits = torch.full((len(tokens), 5), -50.0)
        logits[:, EOS if len(calls) == 3 else 4] = 0.0
        return logits, None, state

    generation = search(step, None, 2, 5, device="cpu", max_length=50, beam_size=beam_size)
    assert len(calls) == 3
    assert generation.tokens.tolist() == [[4, 4, EOS]] * 2


def test_a_beam_that_could_still_win_is_followed():
    """What ends first is better at that moment, but not once the longer one is normalized by its length."""

    def step(tokens, state):
        probabilities = torch.zeros(len(tokens), 6)
        probabilities[tokens == BOS] = torch.tensor([0, 0, 0.5, 0, 0.45, 0.05])
        probabilities[tokens == 4] = torch.tensor([0, 0, 0.5, 0, 0.5, 0])
        probabilities[tokens == 5] = torch.tensor([0, 0, 0, 0, 0, 1.0])
        return probabilities.log(), None, state

    def written(length_penalty):
        generation = search(step, None, 1, 6, device="cpu", max_length=6, beam_size=3, length_penalty=length_penalty)
        return generation.tokens.tolist()

    assert written(0.0) == [[EOS]]
    assert written(6.0) == [[4, 4, EOS]]  # the third to finish; then the beam is full


@pytest.mark.parametrize("beam_size", [2, 4])
def test_weights_follow_their_beam(beam_size):
    model = TablesOfPrefixes(7, 4, num_items=5, end_bias=-0.5)
    generation = run(model, max_length=4, beam_size=beam_size)
    for item in range(5):
        sequence = sequence_of(generation.tokens[item])
        _, weights = model.score(item, sequence)
        assert torch.equal(generation.weights[item, : len(sequence)], weights)
        assert not generation.weights[item, len(sequence) :].any()


def test_a_state_of_any_shape_follows_its_beam():
    """The state is made new at every step here, nested and with None leaves; it must hold each beam's own past."""
    model = TablesOfPrefixes(6, 4, num_items=4)
    expected = run(model, max_length=4, beam_size=3)

    def step(tokens, state):
        logits, weights, inner = model.step(tokens, Prefix(state["a"][0], state["b"].clone()))
        return logits, weights, {"a": (inner.symbols, None), "b": inner.memory}

    start = model.state()
    nested = {"a": (start.symbols, None), "b": start.memory}
    generation = search(step, nested, 4, 6, device="cpu", max_length=4, beam_size=3)
    assert torch.equal(generation.tokens, expected.tokens)
    assert torch.equal(generation.weights, expected.weights)


def test_what_a_step_leaves_untouched_is_not_copied():
    memory = torch.randn(2, 3)
    seen = []

    def step(tokens, state):
        seen.append(state["memory"].data_ptr())
        assert torch.equal(state["memory"], memory.repeat_interleave(2, 0))
        return torch.randn(4, 6), None, {"memory": state["memory"], "count": state["count"] + 1}

    state = {"memory": memory, "count": torch.zeros(2, dtype=torch.int64)}
    search(step, state, 2, 6, device="cpu", max_length=5, beam_size=2)
    assert len(seen) > 1
    assert len(set(seen)) == 1


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_padding_and_begin_marks_are_never_written(beam_size):
    def step(tokens, state):
        logits = torch.zeros(len(tokens), 5)
        logits[:, [PAD, BOS]] = 30.0
        logits[:, EOS] = -30.0
        return logits, None, state

    tokens = search(step, None, 2, 5, device="cpu", max_length=4, beam_size=beam_size).tokens
    assert (tokens >= EOS).all()


@pytest.mark.parametrize("beam_size", [1, 2, 5])
@pytest.mark.parametrize("value", [0.0, -INF])
def test_ties_and_impossible_symbols_give_symbols_of_the_vocabulary_and_the_same_ones_again(beam_size, value):
    """All symbols as good as one another, and none possible at all."""

    def step(tokens, state):
        return torch.full((len(tokens), 5), value), torch.ones(len(tokens), 1), state

    first, again = (search(step, None, 3, 5, device="cpu", max_length=3, beam_size=beam_size) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert (first.tokens[0] == first.tokens).all()
    assert (first.tokens < 5).all()
    assert (first.tokens[:, 0] >= EOS).all()
    assert torch.isfinite(first.weights).all()


def test_a_beam_without_a_way_on_does_not_disturb_the_others():
    """After UNK, the best at first, no symbol is possible."""

    def step(tokens, state):
        logits = torch.full((len(tokens), 6), -INF)
        logits[tokens == BOS] = torch.tensor([-INF, -INF, -INF, 1.0, 0.0, -1.0])
        logits[tokens == 4] = torch.tensor([-INF, -INF, 0.0, -INF, -1.0, -INF])
        return logits, None, state

    generation = search(step, None, 1, 6, device="cpu", max_length=4, beam_size=3)
    assert generation.tokens.tolist() == [[4, EOS]]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_half_precision_logits_and_no_gradients(beam_size):
    weight = torch.randn(6, 6, requires_grad=True)

    def step(tokens, state):
        logits = F.embedding(tokens, weight).to(torch.bfloat16)
        return logits, logits.softmax(-1), state

    generation = search(step, None, 2, 6, device="cpu", max_length=4, beam_size=beam_size)
    assert generation.tokens.dtype == torch.int64
    assert not generation.weights.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0, but must be a whole number of at least 1."),
        ({"beam_size": 7}, "beam_size is 7, but must be at most the size of the vocabulary, 6."),
        ({"beam_size": 1.5}, "beam_size is 1.5, but must be a whole number of at least 1."),
        ({"max_length": 0}, "max_length is 0, but must be a whole number of at least 1."),
        ({"max_length": -3}, "max_length is -3, but must be a whole number of at least 1."),
        ({"length_penalty": -0.5}, "length_penalty is -0.5, but must be a finite number of at least 0."),
        ({"length_penalty": math.nan}, "length_penalty is nan, but must be a finite number of at least 0."),
        ({"batch_size": 0}, "batch_size is 0, but must be a whole number of at least 1."),
        ({"vocab_size": 3}, "vocab_size is 3, but must be at least 4: PAD, BOS, EOS and UNK are always there."),
        ({"vocab_size": 5}, "vocab_size is 5, but the logits' width is 6: they must be equal."),
    ],
)
def test_bad_input(unchecked, options, message):
    def step(tokens, state):
        return torch.zeros(len(tokens), 6), None, state

    arguments = {"batch_size": 2, "vocab_size": 6} | options
    with pytest.raises(ValueError) as error:
        search(step, None, device="cpu", **arguments)
    assert str(error.value) == message
