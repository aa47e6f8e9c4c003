"""The recurrent entity network (Henaff, Weston, Szlam, Bordes and LeCun 2017, https://arxiv.org/abs/1612.03969)."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import kernels
from memnet.access import ReadAccess
from memnet.addressing import ContentAddressing
from memnet.addressing.gate import SlotGate
from memnet.checks import check_answers, check_greater_than_zero, check_positive, check_story
from memnet.functional_entity import candidate, gated_add, prelu
from memnet.models.story_encoding import NULL, LearnedMask, SentenceEncoding, encode
from memnet.scores import DotScore


class EntityNetwork(nn.Module):
    """Answers a question from a memory of entities, which every sentence of the story brings up to date.

    Slot j has a learned key w_j, which says what it is about, and contents h_j. Sentence s opens the slots that it
    concerns, by key or by contents, and adds to each of them phi(U h_j + V w_j + W s) (sec. 2.2). The question q reads
    o from the contents by softmax, once, and the answer is R phi(q + H o) (sec. 2.3).

    As in the authors' program and not in the paper's equations: gates have a bias, contents begin as the keys, phi has
    a slope for each place of the vector, first 1, which sentences and question share; the masks that weight the words
    of sentences are others than those of the question.

    A sentence that is only padding changes nothing. Of the questions of a batch that are asked in the course of one
    story, each with the sentences so far, the story is read once for all; this changes no number.

    ``memnet.record`` gives the gates of each sentence as ``gate`` and the weights of the question as
    ``output.addressing``.

    >>> import torch, memnet
    >>> model = memnet.EntityNetwork(vocab_size=20, num_answers=9, num_slots=5, embedding_size=8)
    >>> story = torch.tensor([[[3, 4, 5], [6, 4, 0]]])  # two sentences, of three words and two
    >>> model(story, torch.tensor([[7, 3]])).shape
    torch.Size([1, 9])

    Args:
        vocab_size: how many words there are, the null word (0) among them.
        num_answers: only the first so many words can be answers; all of them if unset.
        num_slots: m, how many entities the memory has room for.
        embedding_size: d, the width of words, keys and contents.
        num_words: how many words the longest sentence or question has.
        init_std: standard deviation of the first weights, > 0.
        identity_start: whether the network begins as one that keeps what it is told, and not as in the paper. There all
            gates are half open at first and what a sentence adds is twice as long as what a slot holds, so that a slot
            forgets most of it at each sentence, and what must be put together from sentences far apart, as in bAbI
            task 16, is hardly ever learned. Here gates begin nearly shut (a bias of -4) and what is added short, with U
            = V = 0 and W = I/16 (the paper's simplified network has U = V = 0 and W = I); words are four times as long,
            so that their products can open a gate, and keys half as long.

    Raises:
        ValueError: a size is not positive, there are more answers than words, or a number is out of its range.
    """

    def __init__(
        self,
        vocab_size: int,
        num_answers: int | None = None,
        num_slots: int = 20,
        embedding_size: int = 100,
        num_words: int = 16,
        init_std: float = 0.1,
        identity_start: bool = False,
    ):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.num_answers = check_answers(num_answers, vocab_size)
        self.num_slots = check_positive("num_slots", num_slots)
        self.embedding_size = check_positive("embedding_size", embedding_size)
        self.num_words = check_positive("num_words", num_words)
        check_greater_than_zero("init_std", init_std)

        def matrix(rows: int) -> nn.Parameter:
            return nn.Parameter(init_std * torch.randn(rows, embedding_size))

        # The null word has no row: its zeros are no parameter, so nothing can change them.
        self.words = matrix(vocab_size - 1)
        self.keys = matrix(num_slots)
        self.sentence_encoding = LearnedMask(num_words, embedding_size)
        self.question_encoding = LearnedMask(num_words, embedding_size)
        self.gate = SlotGate(DotScore(embedding_size), num_slots)
        self.from_memory = matrix(embedding_size)  # U
        self.from_keys = matrix(embedding_size)  # V
        self.from_sentence = matrix(embedding_size)  # W
        self.bias = nn.Parameter(torch.zeros(embedding_size))
        self.slopes = nn.Parameter(torch.ones(embedding_size))
        self.output = ReadAccess(ContentAddressing(DotScore(embedding_size)), embedding_size)
        self.from_read = matrix(embedding_size)  # H
        self.answers = matrix(self.num_answers)  # R
        if identity_start:
            self._start_as_identity()

    @torch.no_grad()
    def _start_as_identity(self) -> None:
        self.words.mul_(4)
        self.keys.div_(2)
        self.gate.bias.fill_(-4)  # type: ignore[union-attr]
        self.from_memory.zero_()
        self.from_keys.zero_()
        self.from_sentence.copy_(torch.eye(self.embedding_size) / 16)

    def forward(
        self, story: Int64[Tensor, "batch sentence word"], question: Int64[Tensor, "batch asked"]
    ) -> Float[Tensor, "batch answer"]:
        """Logits for the answers.

        Args:
            story: the words of each sentence, the oldest sentence first; words and sentences padded with 0.
            question: the question's words, padded with 0.

        Raises:
            ValueError: story or question have another form, a sentence is longer than ``num_words``, or (looked at on
                the CPU only) a word is outside the vocabulary.
        """
        self.check_inputs(story, question)
        kernel = kernels.find_entity_network(self)
        return self.answer(self._read(story), question) if kernel is None else kernel(self, story, question)

    def answer(
        self, memory: Float[Tensor, "batch slot emb"], question: Int64[Tensor, "batch asked"]
    ) -> Float[Tensor, "batch answer"]:
        """Logits for the answers, from what the slots hold at the end of the stories.

        Args:
            memory: their contents.
            question: as in ``forward``.
        """
        asked = self._encode(self.question_encoding, question)
        read, _ = self.output(asked, self.output.init_state(memory))
        hidden = asked + F.linear(rearrange(read, "batch 1 emb -> batch emb"), self.from_read)
        return F.linear(prelu(hidden, self.slopes), self.answers)

    def check_inputs(self, story: Int64[Tensor, "batch sentence word"], question: Int64[Tensor, "batch asked"]) -> None:
        """Refuses what the network cannot read.

        Args:
            story: as in ``forward``.
            question: as in ``forward``.

        Raises:
            ValueError: see ``forward``.
        """
        check_story(story, question, self.vocab_size)

    def encode_sentences(self, ids: Int64[Tensor, "*batch word"]) -> Float[Tensor, "*batch emb"]:
        """The vectors of a story's sentences.

        Args:
            ids: their words, padded with 0.
        """
        return self._encode(self.sentence_encoding, ids)

    def _encode(self, encoding: SentenceEncoding, ids: Int64[Tensor, "*batch word"]) -> Float[Tensor, "*batch emb"]:
        return encode(encoding, self.words, ids)

    def _step(
        self,
        memory: Float[Tensor, "batch slot emb"],
        sentence: Float[Tensor, "batch emb"],
        from_sentence: Float[Tensor, "batch emb"],
        from_keys: Float[Tensor, "slot emb"],
        mask: Bool[Tensor, "batch slot"] | None = None,
    ) -> Float[Tensor, "batch slot emb"]:
        asked = rearrange(sentence, "batch emb -> batch 1 emb")
        gates, _ = self.gate(asked, memory + self.keys, None, mask)
        added = candidate(memory, self.from_memory, from_keys, from_sentence, self.slopes)
        return gated_add(memory, rearrange(gates, "batch 1 slot -> batch slot"), added)

    def _read(self, story: Int64[Tensor, "batch sentence word"]) -> Float[Tensor, "batch slot emb"]:
        """The memories at the end of the stories, for which no number in them needs to be known."""
        present = (story != NULL).any(-1)
        sentences = self.encode_sentences(story)
        from_sentences = F.linear(sentences, self.from_sentence)
        from_keys = F.linear(self.keys, self.from_keys, self.bias)
        memory = self.keys.expand(len(story), -1, -1)
        for number in range(story.shape[1]):
            told = rearrange(present[:, number], "batch -> batch 1")
            new = self._step(
                memory, sentences[:, number], from_sentences[:, number], from_keys, told.expand(-1, self.num_slots)
            )
            memory = memory.lerp(new, rearrange(told, "batch 1 -> batch 1 1").to(memory))
        return memory
