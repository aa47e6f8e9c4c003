"""How a question with its story is shown: the sentences, where the model looked at each hop, and the answer."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from .encode import StoryBatch
from .names import test_name
from .vocabulary import NULL, VOCABULARY

# A longer story is shown by the sentences that were used or should have been.
_WHOLE = 15
_COLUMN = 7

USED = 0.05
"""A hop uses what it gives at least this much weight."""

ELSEWHERE = "(no sentence)"
"""How the slots of a memory are called that no sentence fills."""


class StoryAnswers(NamedTuple):
    """What a model makes of a batch of questions.

    Attributes:
        logits: for each answer, or each word of the vocabulary.
        weights: of each of the model's looks at the story, one hop after the other, the oldest sentence's slot first;
            None where it has none, or where nobody wants to see them.
    """

    logits: Float[Tensor, "batch answer"]
    weights: Float[Tensor, "batch hop slot"] | None = None


class Shown(NamedTuple):
    """One question in words.

    Attributes:
        task: the task's name; empty where it is not known.
        sentences: what was said before it, as far as the model was given it.
        supports: True at the sentences that the answer follows from.
        question: what is asked.
        right: the right answer; empty where it is not known.
        answer: what the model answers.
        probability: how sure the model is of that.
        weights: how much each hop looks at each sentence.
        elsewhere: how much it looks at slots without a sentence.
    """

    task: str
    sentences: list[str]
    supports: Bool[np.ndarray, " sentence"]
    question: str
    right: str
    answer: str
    probability: float
    weights: Float[np.ndarray, "hop sentence"]
    elsewhere: Float[np.ndarray, " hop"]


def in_words(batch: StoryBatch, outputs: StoryAnswers, item: int) -> Shown:
    """One question of a batch, and the answer to it.

    Args:
        batch: the batch.
        outputs: what a model answered.
        item: which question.
    """
    length = int((batch.story[item] != NULL).any(1).sum())
    task = int(batch.task[item])
    probabilities = outputs.logits[item].detach().float().softmax(0)
    best = int(probabilities.argmax())
    weights = np.zeros((0, length))
    if outputs.weights is not None:
        weights = outputs.weights[item].float().cpu().numpy()
    return Shown(
        test_name(task) if task else "",
        [_text(words) for words in batch.story[item, :length].tolist()],
        batch.supports[item, :length].cpu().numpy(),
        f"{_text(batch.question[item].tolist())}?",
        VOCABULARY[int(batch.answer[item])],
        VOCABULARY[best],
        float(probabilities[best]),
        weights[:, :length],
        weights[:, length:].sum(1),
    )


def text(shown: Shown) -> str:
    """A question for a terminal: a column for each hop, a star at each supporting sentence.

    Args:
        shown: the question.
    """
    used = shown.supports | (shown.weights >= USED).any(0)
    chosen = [place for place in range(len(shown.sentences)) if len(shown.sentences) <= _WHOLE or used[place]]
    hops = range(len(shown.weights))
    lines = [shown.task] if shown.task else []
    if hops:
        lines.append("".join(f"{f'hop {hop + 1}':>{_COLUMN}}" for hop in hops))
    for place in chosen:
        mark = "*" if shown.supports[place] else " "
        lines.append(f"{_row(shown.weights[:, place])}  {mark} {shown.sentences[place]}")
    if (shown.elsewhere >= USED).any():
        lines.append(f"{_row(shown.elsewhere)}    {ELSEWHERE}")
    if len(chosen) < len(shown.sentences):
        others = f"and {len(shown.sentences) - len(chosen)} of {len(shown.sentences)} sentences hardly looked at"
        lines.append(f"{'':{_COLUMN * len(hops)}}    ({others})")
    lines.append(f"question  {shown.question}")
    lines.append(f"answer    {shown.answer} ({shown.probability:.2f})")
    if shown.right:
        verdict = "right" if shown.answer == shown.right else "wrong"
        lines.append(f"expected  {shown.right}: {verdict}")
    return "\n".join(lines)


def _row(weights: Float[np.ndarray, " hop"]) -> str:
    return "".join(f"{weight:{_COLUMN}.2f}" if abs(weight) >= 0.005 else f"{'.':>{_COLUMN}}" for weight in weights)


def _text(words: list[int]) -> str:
    return " ".join(VOCABULARY[word] for word in words if word != NULL)
