"""A universal Transformer over the sentences of a story (Dehghani et al. 2019, https://arxiv.org/abs/1807.03819)."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_answers, check_fraction, check_positive, check_story
from memnet.kernels.ntm_cell import is_plain_call
from memnet.models.multihead import MultiHeadRead
from memnet.models.rotary import rotary_encoding
from memnet.models.story_encoding import NULL, LearnedMask, SentenceEncoding, with_null
from memnet.models.transformer import EncoderLayer, FeedForward
from memnet.recording import has_hooks
from memnet.story_sharing import share

BASE = 100.0
"""Of the rotary encoding: wavelengths from 6 sentences to some hundred, for stories of up to 130."""

MASK_STD = 0.3
"""Of the masks of the words' positions at first: a sentence is not a bag of words even then."""

KIND_STD = 0.02
"""Of what tells a question from a sentence at first, small beside a word's vector."""


class StoryTransformer(nn.Module):
    """Answers a question by asking, again and again, what was said before it.

    Each sentence of the story is a slot, and so is the question. In each step every one of them asks, with many heads,
    the sentences said before it and itself, and takes in what it reads; all steps have the same weights. The question's
    vector after the last step gives the answer.

    Unlike in the paper's encoder a sentence does not see later ones, so it does not know which question will come: of
    the questions of a batch that are asked in the course of one story, each with the sentences so far, the story is
    read once for all; this changes no number but those that dropout draws.

    The words of a sentence are weighted by learned masks of their positions and summed, as in the recurrent entity
    network (Henaff et al. 2017). Attention knows how many sentences were said between two (rotary encoding, Su et al.
    2021), and nothing else tells when a sentence was said. Layers normalise first. A sentence that is only padding
    changes nothing.

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

        # The null word has no row: its zeros are no parameter, so nothing can change them.
        self.words = nn.Parameter(model_size**-0.5 * torch.randn(vocab_size - 1, model_size))
        self.sentence_encoding = LearnedMask(num_words, model_size)
        self.question_encoding = LearnedMask(num_words, model_size)
        for encoding in (self.sentence_encoding, self.question_encoding):
            nn.init.normal_(encoding.masks, mean=1.0, std=MASK_STD)
        self.kinds = nn.Parameter(KIND_STD * torch.randn(2, model_size))
        self.encoding_norm = nn.LayerNorm(model_size)
        self.dropout = nn.Dropout(dropout)
        self.steps = nn.Parameter(torch.zeros(num_steps, model_size))
        attention, feed_forward = MultiHeadRead(model_size, num_heads), FeedForward(model_size, feed_forward_size)
        self.layer = EncoderLayer(model_size, attention, feed_forward, dropout)
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
            shared = share(story, question)
            asked = self._read(shared.stories, shared.questions, shared.counts)[shared.row, shared.place]
        else:  # somebody wants to see each question's own reading, or no numbers may be looked at
            counts = (story != NULL).any(-1).sum(1, keepdim=True)
            asked = self._read(story, rearrange(question, "batch asked -> batch 1 asked"), counts)[:, 0]
        return self.output(self.norm(asked))

    def _read(
        self,
        story: Int64[Tensor, "story sentence word"],
        questions: Int64[Tensor, "story question asked"],
        counts: Int64[Tensor, "story question"],
    ) -> Float[Tensor, "story question model"]:
        """The questions' vectors after the last step, each asked after so many of its story's sentences."""
        present = (story != NULL).any(-1)
        said_before = torch.cat([present.cumsum(1) - present.long(), counts], 1)
        sentences = self._encode(self.sentence_encoding, story) + self.kinds[0]
        asked = self._encode(self.question_encoding, questions) + self.kinds[1]
        x = self.dropout(self.encoding_norm(torch.cat([sentences, asked], 1)))
        mask = _visible(present, said_before)
        rotation = rotary_encoding(
            said_before, self.model_size // self.num_heads, BASE, torch.promote_types(self.words.dtype, torch.float32)
        )
        for step in self.steps:
            x = self.layer(x + step, mask, rotation)
        return x[:, story.shape[1] :]

    def _encode(self, encoding: SentenceEncoding, ids: Int64[Tensor, "*batch word"]) -> Float[Tensor, "*batch model"]:
        return encoding(F.embedding(ids, with_null(self.words)), ids != NULL)


def _visible(
    present: Bool[Tensor, "story sentence"], said_before: Int64[Tensor, "story asker"]
) -> Bool[Tensor, "story asker asker"]:
    """What each may look at: the sentences said before it, and, so that there always is something, itself."""
    num_sentences, num_askers = present.shape[1], said_before.shape[1]
    earlier = rearrange(said_before[:, :num_sentences], "story slot -> story 1 slot") < rearrange(
        said_before, "story asker -> story asker 1"
    )
    seen = earlier & rearrange(present, "story slot -> story 1 slot")
    itself = torch.eye(num_askers, dtype=torch.bool, device=present.device)
    return F.pad(seen, (0, num_askers - num_sentences)) | itself
