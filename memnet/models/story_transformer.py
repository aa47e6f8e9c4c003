"""A universal Transformer over the sentences of a story (Dehghani et al. 2019, https://arxiv.org/abs/1807.03819)."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_answers, check_fraction, check_positive, check_story
from memnet.kernels.ntm_cell import is_plain_call
from memnet.models.multihead import BiasedContentAddressing, MultiHeadRead
from memnet.models.rotary import rotary_encoding
from memnet.models.story_encoding import MASK_STD, NULL, LearnedMask, SentenceEncoding, encode
from memnet.models.story_packing import Slots, pack
from memnet.models.transformer import EncoderLayer, FeedForward
from memnet.models.word_match import WordMatch
from memnet.recording import has_hooks
from memnet.scores import ScaledDotScore
from memnet.story_sharing import share

BASE = 100.0
"""Of the rotary encoding: wavelengths from 6 sentences to some hundred, for stories of up to 130."""

KIND_STD = 0.02
"""Of what tells a question from a sentence at first, small beside a word's vector."""


class StoryTransformer(nn.Module):
    """Answers a question by asking, again and again, what was said before it.

    Each sentence of the story is a slot, and so is the question. In each step every one of them asks, with many heads,
    the sentences said before it and itself, and takes in what it reads; all steps have the same weights. The question's
    vector after the last step gives the answer.

    Unless it is ``bidirectional``, as the paper's encoder is, a sentence does not see later ones. It does not know then
    which question will come: of the questions of a batch that are asked in the course of one story, each with the
    sentences so far, the story is read once for all. Where a sentence sees later ones, that holds of the questions that
    are asked after the same sentences. This changes no number but those that dropout draws.

    The words of a sentence are weighted by learned masks of their positions and summed, as in the recurrent entity
    network (Henaff et al. 2017). Attention knows how many sentences were said between two (rotary encoding, Su et al.
    2021), and nothing else tells when a sentence was said. Half of the heads begin with a liking for sentences that
    have words in common with the asker (``memnet.models.word_match``). Layers normalise first. A sentence that is only
    padding changes nothing.

    ``memnet.record`` gives the weights of each step as ``layer.attention.addressing``, the heads of a question one
    after the other in the batch. The sentences ask first, and the question last.

    >>> import torch, memnet
    >>> model = memnet.StoryTransformer(vocab_size=20, num_answers=9, model_size=8, num_heads=2)
    >>> story = torch.tensor([[[3, 4, 5], [6, 4, 0]]])  # two sentences, of three words and two
    >>> model(story, torch.tensor([[7, 3]])).shape
    torch.Size([1, 9])

    Args:
        vocab_size: how many words there are, the null word (0) among them.
        num_answers: only the first so many words can be answers; all of them if unset.
        model_size: width of a sentence's vector.
        num_heads: must divide ``model_size`` into even widths.
        num_steps: how often the layer is applied.
        feed_forward_size: units between the two linear maps of a position; 2 ``model_size`` if unset.
        dropout: of the sentences' vectors and of what is added to them in each step, in [0, 1).
        num_words: how many words the longest sentence or question has.
        bidirectional: whether a sentence asks those said after it, too.

    Raises:
        ValueError: a size is not positive, there are more answers than words, ``num_heads`` does not divide
            ``model_size`` into even widths, or ``dropout`` is out of its range.
    """

    def __init__(
        self,
        vocab_size: int,
        num_answers: int | None = None,
        model_size: int = 128,
        num_heads: int = 4,
        num_steps: int = 4,
        feed_forward_size: int | None = None,
        dropout: float = 0.1,
        num_words: int = 16,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.num_answers = check_answers(num_answers, vocab_size)
        self.model_size = check_positive("model_size", model_size)
        self.num_heads = check_positive("num_heads", num_heads)
        if model_size % (2 * num_heads):
            raise ValueError(
                f"num_heads is {num_heads}, but must divide model_size, which is {model_size}, into even widths."
            )
        self.num_steps = check_positive("num_steps", num_steps)
        feed_forward_size = 2 * model_size if feed_forward_size is None else feed_forward_size
        check_positive("feed_forward_size", feed_forward_size)
        check_fraction("dropout", dropout)
        check_positive("num_words", num_words)
        self.bidirectional = bidirectional

        # The null word has no row: its zeros are no parameter, so nothing can change them.
        self.words = nn.Parameter(model_size**-0.5 * torch.randn(vocab_size - 1, model_size))
        self.sentence_encoding = LearnedMask(num_words, model_size, MASK_STD)
        self.question_encoding = LearnedMask(num_words, model_size, MASK_STD)
        self.kinds = nn.Parameter(KIND_STD * torch.randn(2, model_size))
        self.encoding_norm = nn.LayerNorm(model_size)
        self.dropout = nn.Dropout(dropout)
        self.steps = nn.Parameter(torch.zeros(num_steps, model_size))
        attention = MultiHeadRead(model_size, num_heads, lambda size: BiasedContentAddressing(ScaledDotScore(size)))
        feed_forward = FeedForward(model_size, feed_forward_size)
        self.layer = EncoderLayer(model_size, attention, feed_forward, dropout)
        self.word_match = WordMatch(vocab_size, num_heads)
        self.norm = nn.LayerNorm(model_size)
        self.output = nn.Linear(model_size, self.num_answers)

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
        check_story(story, question, self.vocab_size)
        if is_plain_call() and not has_hooks(self):
            packed = pack(share(story, beginnings=not self.bidirectional))
            slots, sentences = packed.slots, packed.sentences
            x = self.words.new_zeros(*slots.story.shape, self.model_size)
            x = x.index_put(packed.sentence_at, self._sentences(sentences)).index_put(
                packed.question_at, self._questions(question)
            )
            ids = question.new_zeros(*slots.story.shape, max(sentences.shape[1], question.shape[1]))
            ids[(*packed.sentence_at, slice(sentences.shape[1]))] = sentences
            ids[(*packed.question_at, slice(question.shape[1]))] = question
            asked = self._read(x, slots, ids)[packed.question_at]
        else:  # somebody wants to see each question's own reading, or no numbers may be looked at
            present = F.pad((story != NULL).any(-1), (0, 1))
            own = torch.arange(len(story), device=story.device)
            said_before = present.cumsum(1) - present.long()
            slots = Slots(repeat(own, "batch -> batch slot", slot=present.shape[1]), said_before, present)
            asked = self._questions(question)
            x = torch.cat([self._sentences(story), rearrange(asked, "batch model -> batch 1 model")], 1)
            width = max(story.shape[2], question.shape[1])
            words = [F.pad(each, (0, width - each.shape[-1])) for each in (story, question.unsqueeze(1))]
            ids = torch.cat(words, 1)
            asked = self._read(x, slots, ids)[:, -1]
        return self.output(self.norm(asked))

    def _read(
        self, x: Float[Tensor, "row slot model"], slots: Slots, ids: Int64[Tensor, "row slot word"]
    ) -> Float[Tensor, "row slot model"]:
        """The slots after the last step."""
        width = self.model_size // self.num_heads
        precise = torch.promote_types(x.dtype, torch.float32)
        rotation = rotary_encoding(slots.said_before, width, BASE, precise)
        x = self.dropout(self.encoding_norm(x))
        unseen = rearrange(~slots.visible(self.bidirectional), "row asker slot -> row 1 asker slot")
        bias = self.word_match(ids).masked_fill(unseen, -torch.inf)
        for step in self.steps:
            x = self.layer(x + step, None, rotation, bias)
        return x

    def _sentences(self, ids: Int64[Tensor, "*batch word"]) -> Float[Tensor, "*batch model"]:
        return self._encode(self.sentence_encoding, ids) + self.kinds[0]

    def _questions(self, ids: Int64[Tensor, "*batch asked"]) -> Float[Tensor, "*batch model"]:
        return self._encode(self.question_encoding, ids) + self.kinds[1]

    def _encode(self, encoding: SentenceEncoding, ids: Int64[Tensor, "*batch word"]) -> Float[Tensor, "*batch model"]:
        return encode(encoding, self.words, ids)
