"""The end-to-end memory network (Sukhbaatar, Szlam, Weston and Fergus 2015, https://arxiv.org/abs/1503.08895)."""

import abc
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import kernels
from memnet.access import ReadAccess
from memnet.addressing import ContentAddressing
from memnet.checks import check_answers, check_greater_than_zero, check_positive, check_story
from memnet.functional import SlotMask, masked_softmax, per_head
from memnet.models.story_encoding import (
    NULL,
    PositionEncoding,
    SentenceEncoding,
    add_empty,
    ages,
    encode,
    num_empty,
    with_null,
)
from memnet.normalizers import Normalizer, Softmax
from memnet.scores import DotScore


class LateSoftmax(Normalizer):
    """Softmax, once ``insert`` was called; until then the scores themselves are the weights (linear start, sec. 4.1).

    A network that begins so is linear but for the answer's softmax, and does not settle so soon for a poor minimum.
    ``memnet.training.LinearStart`` inserts the softmax during training. Whether it is in is saved with the weights.
    """

    inserted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inserted", torch.tensor(False))

    def insert(self, members: Bool[Tensor, " member"] | None = None) -> None:
        """Puts the softmax in, for good.

        Args:
            members: in an ``Ensemble``, True for the members that get theirs; all if unset.
        """
        self.inserted |= True if members is None else members.to(self.inserted.device).view_as(self.inserted)

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        linear = scores if mask is None else scores * per_head(mask)
        return torch.where(self.inserted, masked_softmax(scores, mask), linear)


class Layout(NamedTuple):
    """Which embedding matrices a memory network has, and what it uses them for.

    Attributes:
        num_matrices: how many there are.
        question: the number of the one that embeds the question, the paper's B.
        keys: for each hop the one that makes the memory's keys, A.
        values: for each hop the one that makes its values, C.
        answer: the one whose rows are the answers', W; None for a matrix of its own.
        linear_map: whether u goes through a linear map H from hop to hop.
    """

    num_matrices: int
    question: int
    keys: tuple[int, ...]
    values: tuple[int, ...]
    answer: int | None
    linear_map: bool


class Tying(abc.ABC):
    """Says which embedding matrices of a memory network are one and the same (sec. 2.2)."""

    @abc.abstractmethod
    def layout(self, num_hops: int) -> Layout:
        """The matrices of a network.

        Args:
            num_hops: how often it reads its memory.
        """


class AdjacentTying(Tying):
    """A hop's values are the next one's keys: A_{k+1} = C_k, B = A_1, W^T = C_K (sec. 2.2, 1)."""

    def layout(self, num_hops: int) -> Layout:
        return Layout(
            num_matrices=num_hops + 1,
            question=0,
            keys=tuple(range(num_hops)),
            values=tuple(range(1, num_hops + 1)),
            answer=num_hops,
            linear_map=False,
        )


class LayerwiseTying(Tying):
    """All hops have the same keys A and values C, as in a recurrent network; u_{k+1} = H u_k + o_k (sec. 2.2, 2)."""

    def layout(self, num_hops: int) -> Layout:
        return Layout(
            num_matrices=3, question=2, keys=(0,) * num_hops, values=(1,) * num_hops, answer=None, linear_map=True
        )


class MemN2N(nn.Module):
    """Answers a question by reading a story several times, each time knowing what it has read before.

    A memory slot is a sentence. Hop k compares u_k with the keys A_k(story) and reads o_k from the values C_k(story);
    then u_{k+1} = u_k + o_k, and the last u gives the answer (sec. 2). To the words' embedding comes that of the
    sentence's age (temporal encoding).

    The memory has ``num_sentences`` slots whatever the story. Those that no sentence fills hold zeros and take part in
    the softmax like all others, as in the authors' program: a hop that finds nothing reads next to nothing. (Without
    them the errors in yes-or-no questions double.) So answers do not depend on how a batch is padded.

    ``memnet.record`` gives each hop's weights as ``hops.0.addressing`` and so on, the oldest sentence's slot first.

    >>> import torch, memnet
    >>> model = memnet.MemN2N(vocab_size=20, num_sentences=10)
    >>> story = torch.tensor([[[3, 4, 5], [6, 4, 0]]])  # two sentences, of three words and two
    >>> model(story, torch.tensor([[7, 3]])).shape
    torch.Size([1, 20])

    Args:
        vocab_size: V, how many words there are, the null word (0) among them.
        num_answers: only the first so many words can be answers; all of them if unset, as in the paper.
        embedding_size: d.
        num_hops: K, how often the memory is read.
        num_sentences: slots of the memory, the longest story.
        tying: which matrices are shared; ``AdjacentTying`` by default.
        sentence_encoding: how words make a sentence; ``PositionEncoding`` by default.
        normalizer: turns a hop's scores into weights, the same for all hops; softmax by default, ``LateSoftmax`` for
            a linear start.
        activation: applied to u after each hop, e.g. ``torch.nn.ReLU``; nothing by default.
        empty_memories: the random noise of sec. 4.1: in training up to this fraction of a story's sentences is put into
            it as empty memories, which do nothing but make sentences older. 0 for none.
        init_std: standard deviation of the first weights, > 0.

    Raises:
        ValueError: a size is not positive, there are more answers than words, or a number is out of its range.
    """

    def __init__(
        self,
        vocab_size: int,
        num_answers: int | None = None,
        embedding_size: int = 20,
        num_hops: int = 3,
        num_sentences: int = 50,
        tying: Tying | None = None,
        sentence_encoding: SentenceEncoding | None = None,
        normalizer: Normalizer | None = None,
        activation: nn.Module | None = None,
        empty_memories: float = 0.1,
        init_std: float = 0.1,
    ):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.num_answers = check_answers(num_answers, vocab_size)
        self.embedding_size = check_positive("embedding_size", embedding_size)
        self.num_sentences = check_positive("num_sentences", num_sentences)
        check_positive("num_hops", num_hops)
        if not 0 <= empty_memories <= 1:
            raise ValueError(f"empty_memories is {empty_memories}, but must lie between 0 and 1.")
        check_greater_than_zero("init_std", init_std)
        self.layout = (tying if tying is not None else AdjacentTying()).layout(num_hops)
        self.sentence_encoding = sentence_encoding if sentence_encoding is not None else PositionEncoding()
        normalizer = normalizer if normalizer is not None else Softmax()
        self.activation = activation
        self.most_empty = num_empty(empty_memories, num_sentences)

        def matrix(rows: int) -> nn.Parameter:
            return nn.Parameter(init_std * torch.randn(rows, embedding_size))

        # The null word has no row: its zeros are no parameter, so nothing can change them.
        self.words = nn.ParameterList([matrix(vocab_size - 1) for _ in range(self.layout.num_matrices)])
        in_memory = max(*self.layout.keys, *self.layout.values) + 1
        self.times = nn.ParameterList([matrix(num_sentences) for _ in range(in_memory)])
        self.linear_map = matrix(embedding_size) if self.layout.linear_map else None
        self.answers = matrix(self.num_answers) if self.layout.answer is None else None
        self.hops = nn.ModuleList(
            ReadAccess(ContentAddressing(DotScore(embedding_size), normalizer), embedding_size) for _ in range(num_hops)
        )

    def forward(
        self,
        story: Int64[Tensor, "batch sentence word"],
        question: Int64[Tensor, "batch asked"],
        noise: Float[Tensor, "batch draw"] | None = None,
    ) -> Float[Tensor, "batch answer"]:
        """Logits for the answers.

        Args:
            story: the words of each sentence, the oldest sentence first; words and sentences padded with 0.
            question: the question's words, padded with 0.
            noise: what ``draw`` gives; drawn here if unset.

        Raises:
            ValueError: story or question have another form or number of axes, the story is longer than
                ``num_sentences``, or (looked at on the CPU only) a word is outside the vocabulary.
        """
        self.check_inputs(story, question)
        if noise is None and self.training:
            noise = self.draw(story, question)
        kernel = kernels.find_memory_network(self, story, question)
        if kernel is not None:
            return kernel(self, story, question, noise)
        present = story != NULL
        age = ages(present.any(-1))
        if noise is not None:
            age = add_empty(age, noise.to(age.device), torch.tensor(self.most_empty)).clamp(max=self.num_sentences)
        memories = [self._fill(words, times, story, age) for words, times in zip(self.words, self.times, strict=False)]
        control = self._encode(self.words[self.layout.question], question)
        for hop, key, value in zip(self.hops, self.layout.keys, self.layout.values, strict=True):
            assert isinstance(hop, ReadAccess)
            read, _ = hop(control, hop.init_state(memories[key], memories[value]))
            if self.linear_map is not None:
                control = F.linear(control, self.linear_map)
            control = control + rearrange(read, "batch 1 emb -> batch emb")
            if self.activation is not None:
                control = self.activation(control)
        return F.linear(control, self.answer_matrix())

    def answer_matrix(self) -> Float[Tensor, "answer emb"]:
        """W, whose rows the last u is compared with."""
        if self.layout.answer is None:
            assert self.answers is not None
            return self.answers
        return with_null(self.words[self.layout.answer])[: self.num_answers]

    def draw(
        self,
        story: Int64[Tensor, "batch sentence word"],
        question: Int64[Tensor, "batch asked"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch draw"] | None:
        """The random numbers of one call in training; None if there is no random noise.

        Args:
            story: as in ``forward``.
            question: as in ``forward``.
            generator: draws them, on the CPU; torch's own one if unset.
        """
        if not self.most_empty[-1]:
            return None
        return torch.rand(len(story), 1 + self.most_empty[-1], generator=generator)

    def check_inputs(
        self, story: Int64[Tensor, "*member batch sentence word"], question: Int64[Tensor, "*member batch asked"]
    ) -> None:
        """Refuses what the network cannot read, also with one more axis in front, as in an ``Ensemble``.

        Args:
            story: as in ``forward``.
            question: as in ``forward``.

        Raises:
            ValueError: see ``forward``.
        """
        check_story(story, question, self.vocab_size)
        if story.shape[-2] > self.num_sentences:
            raise ValueError(
                f"story holds {story.shape[-2]} sentences, but the model's num_sentences is {self.num_sentences}: "
                "leave out the oldest."
            )

    def _encode(
        self, matrix: Float[Tensor, "words emb"], ids: Int64[Tensor, "*batch word"]
    ) -> Float[Tensor, "*batch emb"]:
        return encode(self.sentence_encoding, matrix, ids)

    def _fill(
        self,
        words: Float[Tensor, "words emb"],
        times: Float[Tensor, "times emb"],
        story: Int64[Tensor, "batch sentence word"],
        age: Int64[Tensor, "batch sentence"],
    ) -> Float[Tensor, "batch slot emb"]:
        sentences = self._encode(words, story) + F.embedding(age, with_null(times))
        return F.pad(sentences, (0, 0, 0, self.num_sentences - story.shape[1]))
