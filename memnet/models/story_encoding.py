"""How the words of a sentence become one vector, and when it was said (Sukhbaatar et al. 2015, sec. 4.1).

MemN2N is Sukhbaatar, Szlam, Weston and Fergus, "End-To-End Memory Networks" (2015), https://arxiv.org/abs/1503.08895.
"""

import abc
import math

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_greater_than_zero, check_positive
from memnet.story_sharing import NULL as NULL

MASK_STD = 0.3
"""Of learned masks where a sentence shall not begin as a bag of words."""


class SentenceEncoding(nn.Module, abc.ABC):
    """Makes one vector of the embedded words of each sentence."""

    @abc.abstractmethod
    def forward(
        self, vectors: Float[Tensor, "*batch word emb"], present: Bool[Tensor, "*batch word"]
    ) -> Float[Tensor, "*batch emb"]:
        """The sentences' vectors; that of an empty sentence must be zero.

        Args:
            vectors: the embedded words, zero where there is none.
            present: which words there are. A sentence's words come first, its padding after them.
        """


class BagOfWords(SentenceEncoding):
    """m_i = sum_j A x_ij (sec. 4.1): the order of the words does not matter."""

    def forward(
        self, vectors: Float[Tensor, "*batch word emb"], present: Bool[Tensor, "*batch word"]
    ) -> Float[Tensor, "*batch emb"]:
        return reduce(vectors, "... word emb -> ... emb", "sum")


class PositionEncoding(SentenceEncoding):
    """m_i = sum_j l_j * A x_ij, each word's vector weighted elementwise by its position (sec. 4.1).

    l_kj = (1 - j/J) - (k/d)(1 - 2j/J) with j the word's position and k the number's place in the vector, both from 1, J
    how many words the sentence has and d the width.

    Args:
        gain: multiplies l. With 2, as in the authors' own program, the weights are 1 on average, so that a sentence's
            vector is as long as that of its bag of words; with 1 they are the paper's formula, and with the paper's
            initial embeddings and learning rates some tasks are not learned.

    Raises:
        ValueError: ``gain`` is not greater than 0.
    """

    def __init__(self, gain: float = 2.0):
        super().__init__()
        self.gain = check_greater_than_zero("gain", gain)

    def weights(self, num_words: int, embedding_size: int) -> Float[Tensor, "length word emb"]:
        """gain l for sentences of 0 to ``num_words`` words; 0 beyond a sentence's last word.

        Args:
            num_words: how many words the longest sentence has.
            embedding_size: d.
        """
        length = rearrange(torch.arange(num_words + 1.0), "length -> length 1 1")
        word = rearrange(torch.arange(1.0, num_words + 1), "word -> word 1")  # j
        place = torch.arange(1.0, embedding_size + 1) / embedding_size  # k / d
        done = word / length.clamp(min=1)  # j / J
        return self.gain * ((1 - done) - place * (1 - 2 * done)) * (word <= length)

    def forward(
        self, vectors: Float[Tensor, "*batch word emb"], present: Bool[Tensor, "*batch word"]
    ) -> Float[Tensor, "*batch emb"]:
        weights = self.weights(*vectors.shape[-2:]).to(vectors)
        return reduce(vectors * weights[present.sum(-1)], "... word emb -> ... emb", "sum")


class LearnedMask(SentenceEncoding):
    """s = sum_i f_i * e_i: each word's vector weighted elementwise by a learned mask of its position.

    That is how the recurrent entity network reads (Henaff et al. 2017, eq. 1, https://arxiv.org/abs/1612.03969). There
    all masks are 1 at first: a bag of words.

    Args:
        num_words: positions, the longest sentence.
        embedding_size: d, the width of a word's vector.
        init_std: standard deviation of the masks' first numbers around 1, at least 0.

    Raises:
        ValueError: a size is not positive or ``init_std`` negative; in forward, if a sentence is longer than
            ``num_words``.
    """

    def __init__(self, num_words: int, embedding_size: int, init_std: float = 0.0):
        super().__init__()
        self.num_words = check_positive("num_words", num_words)
        self.masks = nn.Parameter(torch.ones(num_words, check_positive("embedding_size", embedding_size)))
        if init_std < 0:
            raise ValueError(f"init_std is {init_std}, but must be at least 0.")
        if init_std:
            nn.init.normal_(self.masks, 1.0, init_std)

    def forward(
        self, vectors: Float[Tensor, "*batch word emb"], present: Bool[Tensor, "*batch word"]
    ) -> Float[Tensor, "*batch emb"]:
        longest = vectors.shape[-2]
        if longest > self.num_words:
            raise ValueError(f"a sentence has {longest} words, but the model's num_words is {self.num_words}.")
        return reduce(vectors * self.masks[:longest], "... word emb -> ... emb", "sum")


def with_null(matrix: Float[Tensor, "rows emb"]) -> Float[Tensor, "rows+1 emb"]:
    """The matrix with the row of zeros that belongs to number 0: as no parameter, nothing can change it.

    Args:
        matrix: the rows of the other numbers.
    """
    return F.pad(matrix, (0, 0, 1, 0))


def encode(
    encoding: SentenceEncoding,
    words: Float[Tensor, "rows emb"],
    ids: Int64[Tensor, "*batch word"],
    marks: Float[Tensor, "*batch word emb"] | None = None,
) -> Float[Tensor, "*batch emb"]:
    """The vectors of sentences.

    Args:
        encoding: makes one vector of a sentence's words.
        words: the words' vectors, but for the null word, which has none.
        ids: the words of each sentence, padded with 0.
        marks: added to the words' vectors; 0 where there is no word.
    """
    vectors = F.embedding(ids, with_null(words))
    return encoding(vectors if marks is None else vectors + marks, ids != NULL)


def ages(present: Bool[Tensor, "batch sentence"]) -> Int64[Tensor, "batch sentence"]:
    """The reversed index of each sentence (sec. 4.1): 1 for the last one that was said; 0 where there is none.

    Args:
        present: which sentences there are.
    """
    said_since = present.flip(-1).cumsum(-1).flip(-1)
    return said_since * present


def num_empty(fraction: float, num_sentences: int) -> list[int]:
    """How many empty memories at most are put into a story of 0, 1, ... ``num_sentences`` sentences.

    Args:
        fraction: of the story's sentences, rounded up.
        num_sentences: the longest story.
    """
    # 0.1 * 30 is a little more than 3.
    return [math.ceil(round(fraction * count, 9)) for count in range(num_sentences + 1)]


def add_empty(
    ages: Int64[Tensor, "batch sentence"],
    noise: Float[Tensor, "batch draw"],
    most: Int64[Tensor, " count"],
) -> Int64[Tensor, "batch sentence"]:
    """The ages when a random number of empty memories stand at random places in the story ("random noise", sec. 4.1).

    As in the authors' program their number is uniform from 0 to ``most`` and every way to place them is as likely. They
    are put in one after the other, each into one of the gaps that there are by then; those older than all sentences
    change nothing.

    Args:
        ages: without empty memories.
        noise: uniform in [0, 1): the first number draws how many there are, each other one the place of one of them.
        most: how many there are at most, by the number of sentences (see ``num_empty``).
    """
    counts = (ages > 0).sum(-1)
    added = (noise[:, 0] * (most.to(counts.device)[counts] + 1)).long()
    for number in range(1, noise.shape[1]):
        gap = (noise[:, number] * (counts + number)).long()
        older = (ages > rearrange(gap, "batch -> batch 1")) & rearrange(number <= added, "batch -> batch 1")
        ages = ages + older
    return ages
