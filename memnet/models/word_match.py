"""What a sentence has in common with another one, word for word."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_positive
from memnet.story_sharing import NULL


class WordMatch(nn.Module):
    """b_hij = g_h sum_w a_w, over the words w that sentences i and j share; 0 for a sentence and itself.

    Added to the scores of attention it makes a head look for sentences about the same things, whatever these are: what
    an embedding has to learn of every name before the first step from fact to fact is worth anything ("exact match" as
    a feature: Chen et al. 2017, https://arxiv.org/abs/1704.00051, sec. 3.2). How much a word tells, a_w, is learned
    from 1 for all, and how much a head cares, g_h, from 1 for the first half of the heads and 0 for the others.

    Args:
        vocab_size: how many words there are, the null word (0), which is padding, among them.
        num_heads: how many heads.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(self, vocab_size: int, num_heads: int):
        super().__init__()
        self.salience = nn.Parameter(torch.ones(check_positive("vocab_size", vocab_size) - 1))
        self.gains = nn.Parameter((torch.arange(check_positive("num_heads", num_heads)) < (num_heads + 1) // 2).float())

    def forward(self, ids: Int64[Tensor, "batch slot word"]) -> Float[Tensor, "batch head asker slot"]:
        """What is added to each head's scores.

        Args:
            ids: the words of each sentence, padded with 0.
        """
        salience = F.pad(self.salience, (1, 0))
        has = salience.new_zeros(*ids.shape[:2], len(salience)).scatter_(2, ids, 1.0)
        has[..., NULL] = 0
        shared = einsum(has * salience, has, "batch asker word, batch slot word -> batch asker slot")
        others = 1 - torch.eye(ids.shape[1], dtype=shared.dtype, device=shared.device)
        return rearrange(shared * others, "batch asker slot -> batch 1 asker slot") * rearrange(
            self.gains, "head -> head 1 1"
        )


class QuestionMatch(nn.Module):
    """m_i = a_w sum_p [w is the question's word p] v_p, for a sentence's word w at position i.

    Added to the words' vectors it marks whatever is asked about, so that nobody has to learn of every name that it is
    equal to itself ("exact match" as a feature: Chen et al. 2017, https://arxiv.org/abs/1704.00051, sec. 3.2, who say
    that a word is in the question; here v_p says where it stands there, too, since "is the box left of the door?" does
    not ask the same of both). How much a word tells, a_w, is learned from 1 for all.

    Args:
        vocab_size: how many words there are, the null word (0), which is padding, among them.
        embedding_size: width of a word's vector.
        num_words: how many words the longest question has.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(self, vocab_size: int, embedding_size: int, num_words: int):
        super().__init__()
        self.salience = nn.Parameter(torch.ones(check_positive("vocab_size", vocab_size) - 1))
        check_positive("embedding_size", embedding_size)
        self.places = nn.Parameter(
            embedding_size**-0.5 * torch.randn(check_positive("num_words", num_words), embedding_size)
        )

    def forward(
        self, ids: Int64[Tensor, "sentence word"], asked: Int64[Tensor, "sentence asked"]
    ) -> Float[Tensor, "sentence word emb"]:
        """What is added to each word's vector; 0 for words that are not in the question.

        Args:
            ids: the words of each sentence, padded with 0.
            asked: the words of the question that is asked of it, padded with 0.
        """
        salience = F.pad(self.salience, (1, 0))[ids]  # 0 of the null word
        same = ids.unsqueeze(2) == asked.unsqueeze(1)
        places = self.places[: asked.shape[1]]
        return einsum(same * salience.unsqueeze(2), places, "sentence word asked, asked emb -> sentence word emb")
