"""What hard attention learns by: the REINFORCE gradient, with a baseline, as a loss to differentiate."""

from jaxtyping import Bool, Float
from torch import Tensor

from memnet.addressing.hard import SampledSlots


def reinforce_loss(
    sampled: SampledSlots,
    reward: Float[Tensor, "batch head"],
    mask: Bool[Tensor, "batch head"] | None = None,
    entropy_bonus: float = 0.0,
) -> Float[Tensor, " batch"]:
    """-(r - b) log p(s) + (r - b)^2 - c H[s], summed over the heads of each sequence. To be added to the model's loss.

    By the scores, the gradient of the first term is the REINFORCE estimate of that of the expected reward, -dE[r]
    (Xu et al. 2015, eq. 11 and 12), where r - b stands for a constant: whatever the baseline b, the expectation is the
    same, and it varies least when b is near the expected reward. The second term teaches b that
    (Mnih and Gregor 2014, sec. 2.3). The third keeps the choice open for longer (the entropy of Xu et al., sec. 4.1).
    Only gradients mean something here: the value is no measure of how well a model does.

    The reward is the log-likelihood of the target symbol at the position that asked, and of no later one. That is exact
    where what is read at a position does not feed later positions, as when all target positions ask at once: a sample
    then changes no other reward. Where it does (input feeding), pass the sum over this and later positions instead.

    Args:
        sampled: what the addressing's state held in training.
        reward: r for each head (target position). Its own gradient is not used: train what follows the read by a loss
            of its own.
        mask: which heads count; None for all.
        entropy_bonus: c, the paper's lambda_e, at least 0.

    Returns:
        One number for each sequence.

    Raises:
        ValueError: ``reward`` or ``mask`` is not (batch, head) as the samples are, or ``entropy_bonus`` is negative.
    """
    for name, given in (("reward", reward), ("mask", mask)):
        if given is not None and given.shape != sampled.log_prob.shape:
            raise ValueError(
                f"{name} has shape {tuple(given.shape)}, but slots were sampled for (batch, head) = "
                f"{tuple(sampled.log_prob.shape)}."
            )
    if not entropy_bonus >= 0:
        raise ValueError(f"entropy_bonus is {entropy_bonus}, but must be at least 0.")
    reward = reward.detach()
    advantage = reward - sampled.baseline
    loss = -advantage.detach() * sampled.log_prob + advantage.square() - entropy_bonus * sampled.entropy
    if mask is not None:
        loss = loss.masked_fill(~mask, 0)
    return loss.sum(-1)
