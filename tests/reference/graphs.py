"""Questions about graphs answered slowly, in plain Python, from one example's inputs and nothing else.

Every function takes the inputs of one sequence as a list of time steps, each a list of 92 numbers.
"""


def label(channels):
    """Three digits of ten channels each; None where nothing is said."""
    if not any(channels):
        return None
    digits = [channels[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(digit) == [0] * 9 + [1] for digit in digits)
    return int("".join(str(digit.index(1)) for digit in digits))


def triple(step):
    return tuple(label(step[start : start + 30]) for start in (0, 30, 60))


def phases(steps):
    """The triples of description, query and planning, and those seen while the answer is given."""
    parts = [[]]
    for step in steps:
        if step[90] == 1:
            parts.append([])
        parts[-1].append((triple(step), step[91]))
    description, query, *rest = parts
    assert all(None not in told and wanted == 0 for told, wanted in description)
    assert all(wanted == 0 for _, wanted in query)
    assert 1 <= len(rest) <= 2 and all(wanted == 1 for _, wanted in rest[-1])
    planning = rest[0] if len(rest) == 2 else []
    assert all(told == (None, None, None) and wanted == 0 for told, wanted in planning)
    return [told for told, _ in description], [told for told, _ in query], len(planning), [told for told, _ in rest[-1]]


def check_graph(edges):
    """No two edges of a node have the same label or lead to the same node, and none leads back to itself."""
    assert len({(source, name) for source, _, name in edges}) == len(edges)
    assert len({(source, end) for source, end, _ in edges}) == len(edges)
    assert all(source != end for source, end, _ in edges)


def walk(edges, query):
    here, _, _ = query[0]
    answer = []
    for step, (source, end, name) in enumerate(query):
        assert end is None and (source is not None) == (step == 0)
        (found,) = [edge for edge in edges if edge[0] == here and edge[2] == name]
        answer.append(found)
        here = found[1]
    return answer


def all_shortest(edges, source, goal):
    """Every path of fewest edges, each a list of triples; none if there is no way."""
    paths = [[edge] for edge in edges if edge[0] == source]
    for _ in edges:
        there = [path for path in paths if path[-1][1] == goal]
        if there:
            return there
        paths = [[*path, edge] for path in paths for edge in edges if edge[0] == path[-1][1]]
        # Of the ways to a node that are as long, one beginning is as good as another only once it is at the goal.
        paths = [path for path in paths if len({edge[0] for edge in path} | {path[-1][1]}) == len(path) + 1]
    return []


def by_smallest_label(paths):
    """The path that takes the smallest label at each node."""
    return min(paths, key=lambda path: [name for _, _, name in path])
