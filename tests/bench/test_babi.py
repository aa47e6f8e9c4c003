"""The benchmark of memory networks measures the same networks in all its ways."""

import torch

from memnet.bench.benchmarks import babi


def test_all_ways_are_the_same_networks(settings):
    work = babi.BabiWork(members=3, batch=4, sentences=6, words=5, vocabulary=20, answers=9)
    (measured,) = babi.run(settings, work)
    names = [row.way for row in measured.rows]
    assert names == ["one by one, plain", "ensemble, plain", "one by one, kernel", "ensemble, kernel"]
    assert measured.difference < 1e-4
    for row in measured.rows:
        assert row.extra["questions/s"] == 12 / row.median


def test_every_network_has_gradients_of_its_own():
    work = babi.BabiWork(members=3, batch=4, sentences=6, words=5, vocabulary=20, answers=9)
    for way in babi.ways(work, torch.device("cpu")):
        way.run()
        for gradient in way.results().values():
            assert gradient.shape[0] == 3
            assert gradient.flatten(1).any(1).all()


def test_the_papers_sizes():
    story, question, answer = babi.BabiWork().draw(torch.device("cpu"))
    assert story.shape == (20, 32, 50, 11)
    counts = story.any(-1).sum(-1)
    assert counts.max() == 28 and counts.min() == 2
    told = story[story.any(-1)]
    assert 0 < told.eq(0).float().mean() < 0.5  # sentences of several lengths
    assert question.min() >= 1 and answer.max() < 62
