"""A sample is a function of (seed, index): not of batch size, order, process or where a run was resumed."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tasks import (
    AssociativeRecall,
    Copy,
    GraphTraversal,
    NGrams,
    PrioritySort,
    RepeatCopy,
    ShortestPath,
    VectorSort,
)
from tasks.sampling import EXAMPLES_PER_CHUNK, TEST, TRAIN, VALIDATION, BatchStream, Draws, stream_key

SMALL = [
    (Copy, {"max_length": 5}),
    (RepeatCopy, {"max_length": 4, "max_repeats": 3}),
    (RepeatCopy, {"max_length": 4, "max_repeats": 3, "zero_vectors": 0.2}),
    (AssociativeRecall, {"max_items": 4}),
    (AssociativeRecall, {"max_items": 4, "full_until": 50}),
    (NGrams, {"length": 30}),
    (PrioritySort, {"num_inputs": 5, "num_outputs": 3}),
    (VectorSort, {"max_length": 5}),
    (GraphTraversal, {"max_nodes": 6, "max_degree": 3, "max_path": 3}),
    (ShortestPath, {"max_nodes": 6, "max_degree": 3, "max_path": 3, "num_planning": 1}),
]
every_task = pytest.mark.parametrize("kind, arguments", SMALL, ids=[kind.__name__ for kind, _ in SMALL])


def take(loader, count):
    return list(itertools.islice(loader, count))


def sequences(batches):
    """The batches' sequences without padding, as comparable values."""
    return [
        tuple(tensor[item, :length].numpy().tobytes() for tensor in batch[:3])
        for batch in batches
        for item, length in enumerate(batch.lengths.tolist())
    ]


def on_rank(task, rank, num_ranks):
    task.trainer = SimpleNamespace(global_rank=rank, world_size=num_ranks)
    return task


@every_task
def test_batches_of_32_are_the_singles(kind, arguments):
    singles = sequences(take(kind(batch_size=1, **arguments).train_dataloader(), 320))
    # 10 batches of 32 cross the end of a chunk, and one of 300 is larger than a chunk.
    assert EXAMPLES_PER_CHUNK < 32 * 10
    assert sequences(take(kind(batch_size=32, **arguments).train_dataloader(), 10)) == singles
    assert sequences(take(kind(batch_size=300, **arguments).train_dataloader(), 1)) == singles[:300]
    # Few of these small sequences are alike by chance, so equality above says something.
    assert len(set(singles)) > 250


@every_task
def test_two_ranks_make_the_batch_of_one_process(kind, arguments):
    whole = take(kind(batch_size=6, **arguments).train_dataloader(), 60)
    parts = [take(on_rank(kind(batch_size=6, **arguments), rank, 2).train_dataloader(), 60) for rank in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert len(first.inputs) == len(second.inputs) == 3
        assert sequences([first]) + sequences([second]) == sequences([batch])


@every_task
def test_resume_continues_exactly(kind, arguments):
    whole = take(kind(batch_size=4, **arguments).train_dataloader(), 150)
    for consumed in (1, 63, 64, 101):
        task = kind(batch_size=4, **arguments)
        task.batches_consumed = consumed
        rest = take(task.train_dataloader(), 150 - consumed)
        assert sequences(rest) == sequences(whole[consumed:])


@every_task
def test_every_epoch_of_a_fixed_set_is_the_same(kind, arguments):
    loader = kind(num_val=150, eval_batch_size=64, **arguments).val_dataloader()
    assert len(loader) == 3
    assert [len(batch.inputs) for batch in loader] == [64, 64, 22]
    assert sequences(loader) == sequences(loader)


@every_task
def test_train_validation_and_test_are_disjoint(kind, arguments):
    large = {"num_val": 200, "num_test": 200, "batch_size": 100}
    if kind in (Copy, RepeatCopy, VectorSort):
        arguments = {"min_length": 10}
    elif kind is AssociativeRecall:
        arguments = {"min_items": 6}
    elif kind is NGrams:
        arguments = {"length": 300}
    task = kind(**large, **arguments)
    other = kind(seed=2, **large, **arguments)
    sets = [take(task.train_dataloader(), 2), take(other.train_dataloader(), 2), task.val_dataloader()]
    sets += task.test_dataloader()
    examples = [example for batches in sets for example in sequences(batches)]
    assert len(examples) == 200 * len(sets)
    # A table that all but surely repeats a bit is not rare, and two such sequences may be equal.
    chance = 5 if kind is NGrams else 0
    assert len(examples) - len(set(examples)) <= chance


def test_validation_and_test_do_not_depend_on_the_seed():
    one, two = Copy(seed=1, batch_size=8), Copy(seed=2, batch_size=3)
    assert sequences(one.val_dataloader()) == sequences(two.val_dataloader())
    for first, second in zip(one.test_dataloader(), two.test_dataloader(), strict=True):
        assert sequences(first) == sequences(second)
    assert sequences(take(one.train_dataloader(), 3)) != sequences(take(two.train_dataloader(), 8))


def test_keys_of_streams_differ():
    names = [(TRAIN, seed) for seed in (0, 1, 2, 3, 2**32, 2**32 + 1, 2**40)]
    names += [(VALIDATION, 0)] + [(TEST, number) for number in range(6)]
    keys = {tuple(stream_key(*name).tolist()) for name in names}
    assert len(keys) == len(names)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 33])
def test_a_sample_owns_its_block_of_the_stream(size):
    """Samples are consecutive blocks of Philox's output, each a whole number of counters of four words."""
    key = stream_key(TRAIN, 5)
    words = Draws(key, np.arange(20)).words(size)
    block = -(-size // 4) * 4
    stream = np.random.Philox(key=key).random_raw(20 * block).reshape(20, block)
    np.testing.assert_array_equal(words, stream[:, :size])
    # The same place is found by numpy's own way of skipping ahead.
    skipped = np.random.Philox(key=key)
    skipped.advance(13 * block // 4)
    np.testing.assert_array_equal(Draws(key, np.array([13])).words(size)[0], skipped.random_raw(size))
    # A selection of samples is those samples.
    chosen = np.array([2, 3, 7, 19])
    np.testing.assert_array_equal(Draws(key, chosen).words(size), words[chosen])


def test_fields_of_a_sample_are_different_numbers():
    draws = Draws(stream_key(TRAIN, 5), np.arange(50))
    numbers = np.concatenate([draws.words(8), draws.words(8), draws.words(12)], axis=1)
    assert len(np.unique(numbers)) == numbers.size


def test_draws_cover_their_ranges():
    draws = Draws(stream_key(TRAIN, 5), np.arange(3000))
    uniform = draws.uniform(3)
    assert uniform.shape == (3000, 3) and 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1
    integers = draws.integers(-1, 2)
    assert integers.shape == (3000,) and set(integers.tolist()) == {-1, 0, 1, 2}
    high = np.arange(3000) % 5
    bounded = draws.integers(0, high)
    assert all(set(bounded[high == top].tolist()) == set(range(top + 1)) for top in range(5))
    bits = draws.bits(5, 13)
    assert bits.shape == (3000, 5, 13) and set(np.unique(bits).tolist()) == {0, 1}


@pytest.mark.parametrize("count", [1, 65, 200])
def test_bits_are_the_words_they_come_from(count):
    bits = Draws(stream_key(TRAIN, 5), np.arange(6)).bits(count)
    words = Draws(stream_key(TRAIN, 5), np.arange(6)).words(-(-count // 64))
    for row, own in zip(bits, words.tolist(), strict=True):
        octets = b"".join(word.to_bytes(8, "little") for word in own)
        expected = [octets[place // 8] >> (7 - place % 8) & 1 for place in range(count)]
        assert row.tolist() == expected


def test_fixed_sets_are_shared_by_the_ranks():
    arguments = {"num_val": 20, "eval_batch_size": 8, "num_test": 6}
    whole = Copy(**arguments)
    ranks = [on_rank(Copy(**arguments), rank, 2) for rank in range(2)]
    for batch, first, second in zip(whole.val_dataloader(), *(task.val_dataloader() for task in ranks), strict=True):
        assert sequences([first]) + sequences([second]) == sequences([batch])
        assert len(first.inputs) == len(second.inputs)
    tests = [sequences(task.test_dataloader()[1]) for task in (whole, *ranks)]
    assert tests[1] + tests[2] == tests[0] and len(tests[0]) == 6


@pytest.mark.parametrize(
    "arguments, loader, message",
    [
        ({"batch_size": 5}, "train_dataloader", "batch size is 5, but must be a multiple of the 2 processes"),
        ({"eval_batch_size": 7}, "val_dataloader", "batch size is 7, but must be a multiple of the 2 processes"),
        ({"num_val": 51}, "val_dataloader", "number of sequences is 51, but must be a multiple of the 2 processes"),
        ({"num_test": 3}, "test_dataloader", "number of sequences is 3, but must be a multiple of the 2 processes"),
    ],
)
def test_what_ranks_cannot_share_is_refused(arguments, loader, message):
    task = on_rank(Copy(**arguments), 0, 2)
    with pytest.raises(ValueError, match=message):
        getattr(task, loader)()


def test_an_endless_stream_has_no_length():
    with pytest.raises(TypeError, match="endless"):
        len(Copy().train_dataloader())


def test_a_batch_is_padded_to_its_own_longest():
    for batch in take(Copy(batch_size=3).train_dataloader(), 200):
        assert batch.inputs.shape[1] == batch.lengths.max()
        assert all(tensor.is_contiguous() for tensor in batch)


def test_lengths_stay_on_the_cpu():
    task = Copy(batch_size=2)
    batch = next(iter(task.train_dataloader()))
    moved = task.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert [tensor.device.type for tensor in moved] == ["meta", "meta", "meta", "cpu"]
    other = task.transfer_batch_to_device({"x": torch.zeros(2)}, torch.device("meta"), 0)
    assert other["x"].device.type == "meta"


def test_a_stream_is_drawn_in_chunks_not_batch_by_batch():
    """What makes batch size 1 cheap: 512 batches of one are two calls."""
    calls = []

    def sample(draws):
        calls.append(draws.count)
        return Copy().sample(draws)

    take(BatchStream(sample, stream_key(TRAIN, 1), batch_size=1), 2 * EXAMPLES_PER_CHUNK)
    assert calls == [EXAMPLES_PER_CHUNK] * 2
