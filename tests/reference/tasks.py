"""Each task's answer worked out slowly, in plain Python, from one example's inputs and nothing else.

Every function takes the inputs of one sequence as a list of time steps, each a list of numbers, and gives back the
targets in the same form and a list that says at which steps they count.
"""

import math


def copy(steps, num_bits):
    vectors, delimiters = [], 0
    for step in steps:
        if delimiters == 0 and step[num_bits] == 0:
            vectors.append(step[:num_bits])
        elif step[num_bits] == 1:
            assert not any(step[:num_bits]), "the delimiter stands alone"
            delimiters += 1
        else:
            assert not any(step), "no input while the output is produced"
    assert delimiters == 1
    return answer([[0] * num_bits] * (len(vectors) + 1), vectors)


def repeat_copy(steps, num_bits, mean_repeats, deviation):
    where = [time for time, step in enumerate(steps) if step[num_bits] != 0]
    assert len(where) == 1, "one count"
    vectors = [step[:num_bits] for step in steps[: where[0]]]
    assert not any(steps[where[0]][:num_bits]), "the count stands alone"
    assert not any(number for step in steps[where[0] + 1 :] for number in step), "no input during the output"
    repeats = round(steps[where[0]][num_bits] * deviation + mean_repeats)
    spoken = []
    for _ in range(repeats):
        for vector in vectors:
            spoken.append([*vector, 0])
    spoken.append([0] * num_bits + [1])
    return answer([[0] * (num_bits + 1)] * (len(vectors) + 1), spoken)


def associative_recall(steps, num_bits, item_length):
    items, item, query, queries, time = [], None, [], 0, 0
    while queries < 2:
        step = steps[time]
        time += 1
        assert sum(step[num_bits:]) <= 1
        if sum(step[num_bits:]) == 1:
            assert not any(step[:num_bits]), "a delimiter stands alone"
        if step[num_bits] == 1:  # bounds an item on the left, on the right, or both
            assert queries == 0
            if item is not None:
                items.append(item)
            item = []
        elif step[num_bits + 1] == 1:
            assert item == [], "the last item has its right delimiter before the query"
            queries += 1
        elif queries == 1:
            query.append(step[:num_bits])
        else:
            item.append(step[:num_bits])
    assert all(len(item) == item_length for item in [*items, query])
    assert not any(number for step in steps[time:] for number in step), "no input during the output"
    # Equal items are too rare to matter, but should they come the first of them need not be the one asked for.
    assert items.count(query) == 1, "choose another seed"
    return answer([[0] * num_bits] * time, items[items.index(query) + 1])


def priority_sort(steps, num_bits, num_inputs, num_outputs):
    rows = [(step[num_bits], step[:num_bits]) for step in steps[:num_inputs]]
    assert not any(number for step in steps[num_inputs:] for number in step), "no input during the output"
    best = []
    while len(best) < num_outputs:
        highest = rows[0]
        for row in rows:
            if row[0] > highest[0]:
                highest = row
        rows.remove(highest)
        best.append(highest[1])
    return answer([[0] * num_bits] * num_inputs, best)


def vector_sort(steps, num_bits):
    silence, vectors = copy(steps, num_bits)[0], []
    for step in steps:
        if step[num_bits] == 1:
            break
        vectors.append(step[:num_bits])
    spoken = []
    while vectors:
        smallest = vectors[0]
        for vector in vectors:
            if int("".join(str(int(bit)) for bit in vector), 2) < int("".join(str(int(bit)) for bit in smallest), 2):
                smallest = vector
        vectors.remove(smallest)
        spoken.append(smallest)
    return answer(silence[: len(spoken) + 1], spoken)


def answer(silence, spoken):
    """Targets of steps that do not count, followed by those that do."""
    return silence + spoken, [False] * len(silence) + [True] * len(spoken)


def ngram_optimal_bits(bits, context):
    """Graves et al. 2014, equation 10, summed over all bits but the first, which nothing predicts."""
    counts = {}
    total = 0.0
    for time in range(1, len(bits)):
        if time < context:  # a fair coin
            total += 1.0
            continue
        zeros, ones = counts.setdefault(tuple(bits[time - context : time]), [0, 0])
        probability = (ones + 0.5) / (zeros + ones + 1)
        total -= math.log2(probability if bits[time] == 1 else 1 - probability)
        counts[tuple(bits[time - context : time])][int(bits[time])] += 1
    return total
