"""A small memory network for tests of the task: two hops, so that there is something to show."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

import memnet


class TwoHops(nn.Module):
    """Bags of words, one table of embeddings, two hops, logits for the answers.

    Args:
        vocab_size: how many words there are.
        num_answers: how many of them are answers.
        size: width of the embeddings.
        num_sentences: how many slots the memory has, filled or not; as many as sentences if None.
    """

    def __init__(self, vocab_size: int, num_answers: int, size: int = 8, num_sentences: int | None = None):
        super().__init__()
        self.num_sentences = num_sentences
        self.vocab_size, self.num_answers = vocab_size, num_answers
        self.embedding = nn.Embedding(vocab_size, size, padding_idx=0)
        self.hops = nn.ModuleList(memnet.ContentAddressing(memnet.DotScore(size)) for _ in range(2))
        self.answer = nn.Linear(size, num_answers)

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        if self.num_sentences is not None:
            story = F.pad(story, (0, 0, 0, self.num_sentences - story.shape[1]))
        memory = self.embedding(story).sum(2)
        asked = rearrange(self.embedding(question).sum(1), "batch size -> batch 1 size")
        for hop in self.hops:
            mask = (story != 0).any(2) if self.num_sentences is None else None
            weights, _ = hop(asked, memory, None, mask)
            asked = asked + weights @ memory
        return self.answer(rearrange(asked, "batch 1 size -> batch size"))


class Bag(nn.Module):
    """Knows which words occur, and looks nowhere.

    Args:
        vocab_size: how many words there are.
        num_answers: how many of them are answers.
    """

    def __init__(self, vocab_size: int, num_answers: int):
        super().__init__()
        self.vocab_size, self.num_answers = vocab_size, num_answers
        self.embedding = nn.EmbeddingBag(vocab_size, num_answers, padding_idx=0)

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        return self.embedding(torch.cat([story.flatten(1), question], 1))
