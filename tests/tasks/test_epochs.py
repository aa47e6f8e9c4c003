"""Which items the batches of an endless stream over a finite set hold."""

import itertools

import numpy as np
import pytest

from tasks.epochs import ORDER, InOrder, ItemBatches, LengthBuckets, Shuffled, random_words
from tasks.sampling import TEST, TRAIN, VALIDATION, stream_key

KEY, OTHER_KEY = stream_key(ORDER, 1), stream_key(ORDER, 2)


def lengths(count=200, longest=20):
    generator = np.random.default_rng(0)
    return generator.integers(1, longest + 1, count), generator.integers(2, longest + 1, count)


def buckets(max_tokens=60, key=KEY, **sizes):
    return LengthBuckets(*lengths(**sizes), max_tokens, key)


def take(schedule, count, **arguments):
    return list(itertools.islice(ItemBatches(lambda items: items.tolist(), schedule, **arguments), count))


SCHEDULES = {"shuffled": lambda key=KEY: Shuffled(37, 10, key), "buckets": lambda key=KEY: buckets(key=key)}
every_schedule = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES.keys())


def test_every_epoch_goes_through_the_set_once():
    flat = list(itertools.chain(*take(Shuffled(37, 10, KEY), 37)))
    epochs = [flat[first : first + 37] for first in range(0, 370, 37)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 10


@pytest.mark.parametrize("batch_size", [1, 7, 37, 100])
def test_the_stream_of_items_does_not_depend_on_the_batch_size(batch_size):
    flat = list(itertools.chain(*take(Shuffled(37, batch_size, KEY), 400 // batch_size)))
    assert flat == list(itertools.chain(*take(Shuffled(37, 1, KEY), len(flat))))


def test_an_order_is_uniform():
    """Each item comes to each place about as often as to any other: chi-squared of 5 x 5 cells over 4,000 epochs."""
    counts = np.zeros((5, 5))
    schedule = Shuffled(5, 5, KEY)
    for epoch in range(4000):
        counts[np.arange(5), schedule.order(epoch)] += 1
    # 16 degrees of freedom; 40 is exceeded by chance once in a thousand keys
    assert ((counts - 800) ** 2 / 800).sum() < 40


def test_groups_stay_together_and_are_shuffled():
    groups = np.array([5, 5, 9, 9, 9, 2, 7, 7])
    schedule = Shuffled(8, 3, KEY, groups)
    flat = list(itertools.chain(*take(schedule, 8 * 200)))
    orders = set()
    for first in range(0, 8 * 600, 8):
        epoch = flat[first : first + 8]
        assert sorted(epoch) == list(range(8))
        runs = [list(run) for _, run in itertools.groupby(epoch, key=lambda item: groups[item])]
        assert sorted(runs) == [[0, 1], [2, 3, 4], [5], [6, 7]]
        orders.add(tuple(run[0] for run in runs))
    assert orders == set(itertools.permutations([0, 2, 5, 6]))  # all 24 ways in 600 epochs


def test_groups_of_one_are_plainly_shuffled():
    assert take(Shuffled(37, 10, KEY, np.arange(37)[::-1]), 2) != take(Shuffled(37, 10, KEY), 2)
    assert take(Shuffled(37, 10, KEY, np.arange(37)), 20) == take(Shuffled(37, 10, KEY), 20)


@every_schedule
def test_batches_are_a_function_of_the_key(make):
    assert take(make(), 50) == take(make(), 50)
    assert take(make(), 50) != take(make(OTHER_KEY), 50)


@every_schedule
def test_a_stream_goes_on_from_any_batch(make):
    whole = take(make(), 60)
    for first in (1, 2, 3, 4, 29, 30, 41):
        assert take(make(), 60 - first, first_batch=first) == whole[first:]


@every_schedule
def test_a_batch_does_not_depend_on_those_asked_for_before(make):
    schedule = make()
    backwards = [schedule.items(batch).tolist() for batch in reversed(range(50))]
    assert backwards[::-1] == take(make(), 50)


def test_the_words_of_epochs_and_fields_differ():
    words = [random_words(KEY, epoch, field, 50) for epoch in range(3) for field in range(2)]
    assert len(np.unique(np.concatenate(words))) == 300


def test_orders_have_random_numbers_of_their_own():
    """Not those that items are made of."""
    assert ORDER not in (TRAIN, VALIDATION, TEST)


@pytest.mark.parametrize("num_ranks", [2, 5])
def test_ranks_share_each_batch(num_ranks):
    whole = take(Shuffled(37, 10, KEY), 20)
    parts = [take(Shuffled(37, 10, KEY), 20, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    for batch, *own in zip(whole, *parts, strict=True):
        assert list(itertools.chain(*own)) == batch
        assert {len(part) for part in own} == {10 // num_ranks}


def test_ranks_share_each_bucket_about_evenly():
    source, target = lengths()
    parts = [take(buckets(), 80, rank=rank, num_ranks=3) for rank in range(3)]
    for batch, *own in zip(take(buckets(), 80), *parts, strict=True):
        assert list(itertools.chain(*own)) == batch
        rows = [len(part) for part in own]
        assert max(rows) - min(rows) <= 1 and min(rows) > 0
        # What they have to compute is alike, too: rows of one batch are of about one length.
        widths = [max(max(source[part]), max(target[part])) for part in own]
        assert max(widths) - min(widths) <= 2


def test_every_epoch_of_buckets_goes_through_the_set_once():
    schedule = buckets()
    epochs = [
        [schedule.items(epoch * schedule.num_batches + place).tolist() for place in range(schedule.num_batches)]
        for epoch in range(4)
    ]
    assert all(sorted(itertools.chain(*epoch)) == list(range(200)) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) == 4
    # Not only the batches' order changes but who is with whom.
    assert len({frozenset(map(frozenset, epoch)) for epoch in epochs}) == 4
    # Long and short ones come in another order, too.
    assert len({tuple(map(len, epoch)) for epoch in epochs}) == 4


@pytest.mark.parametrize("max_tokens", [20, 33, 60, 500, 10_000])
def test_buckets_hold_so_many_tokens_and_no_more(max_tokens):
    source, target = lengths()
    schedule = buckets(max_tokens)
    sizes = []
    for place in range(schedule.num_batches):
        items = schedule.items(place)
        sizes.append(len(items) * max(source[items].max(), target[items].max()))
    assert max(sizes) <= max_tokens
    assert schedule.num_batches == 1 if max_tokens == 10_000 else np.median(sizes) > 0.6 * max_tokens


@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 207])
def test_no_bucket_is_nearly_empty(count):
    """Whatever is left over, a step on a pair or two would be one of noise."""
    schedule = buckets(100, count=count)
    rows = [len(schedule.items(place)) for place in range(schedule.num_batches)]
    assert sum(rows) == count
    # Full of the longest texts, 20 symbols each, a batch holds five.
    assert min(rows) >= min(5, count)


def test_buckets_need_little_padding():
    source, target = lengths(count=2000)
    schedule = buckets(200, count=2000)
    items = [schedule.items(place) for place in range(schedule.num_batches)]
    padded = sum(len(each) * np.maximum(source, target)[each].max() for each in items)
    # A batch's rows differ in length by one or two of twenty; batches at random would be twice as large.
    assert padded < 1.1 * np.maximum(source, target).sum()


def test_a_pair_too_long_for_a_batch_is_refused():
    with pytest.raises(ValueError, match="max_tokens is 19, but the longest text alone has 20 symbols"):
        buckets(19)


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="batch size is 10, but must be a multiple of the 3 processes"):
        take(Shuffled(37, 10, KEY), 1, num_ranks=3)
    with pytest.raises(ValueError, match=r"max_tokens is 30, which makes a batch of 1 pairs, .* 80 would do"):
        take(buckets(30), 1, num_ranks=2)
    take(buckets(80), 1, num_ranks=2)
    with pytest.raises(ValueError, match="a batch holds 2 pairs, but each of the 3 processes must get one"):
        take(InOrder(2, 5), 1, num_batches=1, num_ranks=3)


def test_a_fixed_set_is_in_order():
    order = InOrder(10, 4)
    batches = ItemBatches(lambda items: items.tolist(), order, num_batches=order.num_batches)
    assert len(batches) == 3
    assert list(batches) == list(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_ranks_share_a_fixed_set_of_any_size():
    order = InOrder(9, 4)
    parts = [
        ItemBatches(lambda items: items.tolist(), order, num_batches=order.num_batches, rank=rank, num_ranks=2)
        for rank in range(2)
    ]
    # The last batch holds one pair, which is one process's.
    assert [len(part) for part in parts] == [3, 2]
    assert [list(part) for part in parts] == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7]]]


def test_an_endless_stream_has_no_length():
    with pytest.raises(TypeError, match="endless"):
        len(ItemBatches(list, Shuffled(37, 10, KEY)))
