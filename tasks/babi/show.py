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
_USED = 0.05
_COLUMN = 7


class StoryAnswers(NamedTuple):
    """What a model makes of a batch of questions.

    Attributes:
        logits: for each answer, or each word of the vocabulary.
        weights: of each of the model's looks at the story, one hop after the other; None where it has none.
    """

    logits: Float[Tensor, "batch answer"]
    weights: Float[Tensor, "batch hop sentence"] | None = None


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
    """

    task: str
    sentences: list[str]
    supports: Bool[np.ndarray, " sentence"]
    question: str
    right: str
    answer: str
    probability: float
    weights: Float[np.ndarray, "hop sentence"]


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
        weights = outputs.weights[item, :, :length].float().cpu().numpy()
    return Shown(
        test_name(task) if task else "",
        [_text(words) for words in batch.story[item, :length].tolist()],
        batch.supports[item, :length].cpu().numpy(),
        f"{_text(batch.question[item].tolist())}?",
        VOCABULARY[int(batch.answer[item])],
        VOCABULARY[best],
        float(probabilities[best]),
        weights,
    )


def text(shown: Shown) -> str:
    """A question for a terminal: a column for each hop, a star at each supporting sentence.

    Args:
        shown: the question.
    """
    used = shown.supports | (shown.weights >= _USED).any(0)
    chosen = [place for place in range(len(shown.sentences)) if len(shown.sentences) <= _WHOLE or used[place]]
    hops = range(len(shown.weights))
    lines = [shown.task] if shown.task else []
    if hops:
        lines.append("".join(f"{f'hop {hop + 1}':>{_COLUMN}}" for hop in hops))
    for place in chosen:
        weights = "".join(_number(shown.weights[hop, place]) for hop in hops)
        lines.append(f"{weights}  {'*' if shown.supports[place] else ' '} {shown.sentences[place]}")
    if len(chosen) < len(shown.sentences):
        others = f"and {len(shown.sentences) - len(chosen)} of {len(shown.sentences)} sentences hardly looked at"
        lines.append(f"{'':{_COLUMN * len(hops)}}    ({others})")
    lines.append(f"question  {shown.question}")
    lines.append(f"answer    {shown.answer} ({shown.probability:.2f})")
    if shown.right:
        verdict = "right" if shown.answer == shown.right else "wrong"
        lines.append(f"expected  {shown.right}: {verdict}")
    return "\n".join(lines)


def _number(weight: float) -> str:
    return f"{weight:{_COLUMN}.2f}" if abs(weight) >= 0.005 else f"{'.':>{_COLUMN}}"


def _text(words: list[int]) -> str:
    return " ".join(VOCABULARY[word] for word in words if word != NULL)
