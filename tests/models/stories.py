"""Stories of a few words, and learning to read, which the tests of several networks share."""

import itertools

import torch

STORY = [[3, 5, 7, 2], [4, 4], [9, 1, 3], [2, 8, 6]]
QUESTION = [6, 3, 9]


def padded(stories, sentences=None, words=None):
    """The stories as a batch, by default no longer than the longest of them."""
    sentences = sentences or max(map(len, stories))
    words = words or max(len(sentence) for story in stories for sentence in story)
    batch = torch.zeros(len(stories), sentences, words, dtype=torch.int64)
    for item, story in enumerate(stories):
        for place, sentence in enumerate(story):
            batch[item, place, : len(sentence)] = torch.tensor(sentence, dtype=torch.int64)
    return batch


def asked(count):
    """The same question so many times."""
    return torch.tensor([QUESTION] * count)


STORIES = {
    "alike": [STORY] * 3,
    "beginnings": [STORY[:2], STORY, STORY[:1], STORY[:2], [STORY[1]]],
    "others": [STORY, [[5]], [[1, 2], [3]], STORY[::-1]],
    "nothing was said": [[], [], []],
    "something and nothing": [STORY, [], STORY[:3]],
}
"""Of a batch, by what the stories have in common."""


def error_after(steps, model, task, optimizer, clip):
    """The mean error in percent on a task's test set, after so many training batches; gradients clipped by norm."""
    for batch in itertools.islice(task.train_dataloader(), steps):
        optimizer.zero_grad()
        task.evaluate(model, batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    model.eval()
    errors = [task.evaluate(model, batch).metrics["error_percent"] for batch in task.test_dataloader()[0]]
    return torch.cat(errors).mean()
