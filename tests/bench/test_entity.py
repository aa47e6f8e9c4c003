"""The entity network's benchmark, on works that take no time."""

import pytest
import torch

from memnet.bench.benchmarks import entity
from memnet.kernels import build, entity_cpu

SMALL = entity.StoryWork("short", sentences=4, questions=2, batch=3, slots=3, width=5, vocabulary=9, answers=6)
FLOOR = "floor (matrix products)"


@pytest.mark.skipif(build.load(entity_cpu.SOURCE) is None, reason="there is no C++ compiler here")
def test_the_ways_do_the_same_work_and_stand_beside_the_floor(settings, capsys):
    (measured,) = entity.run(settings, [SMALL])
    assert measured.work == "batch 3, short"
    assert measured.work in capsys.readouterr().err
    assert [row.way for row in measured.rows] == ["plain loop", "kernel", FLOOR]
    assert 0 < measured.difference < 1e-4  # they round differently


def test_without_a_kernel_it_says_so(settings, monkeypatch):
    monkeypatch.setenv("MEMNET_KERNELS", "0")
    (measured,) = entity.run(settings, [SMALL])
    assert [row.way for row in measured.rows] == ["plain loop", FLOOR]
    assert measured.notes == ("no kernel fits here, so there is only the plain loop",)


def test_questions_are_asked_in_the_course_of_a_story():
    story, question, answer = SMALL.draw(torch.device("cpu"))
    assert story.shape == (3, 4, 7) and question.shape == (3, 4) and answer.shape == (3,)
    assert story.any(-1).sum(-1).tolist() == [2, 4, 2]
    assert torch.equal(story[0, :2], story[1, :2]) and not torch.equal(story[0, :2], story[2, :2])
    assert [work.stories for work in entity.WORKS] == [7, 32, 7]
