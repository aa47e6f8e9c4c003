"""Many independent models of one architecture, trained as one."""

import copy
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from memnet import kernels
from memnet.checks import check_positive


@runtime_checkable
class TakesNoise(Protocol):
    """A network that draws random numbers itself, or looks at the numbers it is given.

    Neither can be done for all members at once, so an ``Ensemble`` asks for the one and the other beforehand. Its
    ``forward`` has a last argument ``noise`` for what was drawn.
    """

    def check_inputs(self, *inputs: Tensor) -> None:
        """Refuses inputs, which have the member axis in front."""

    def draw(self, *inputs: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
        """What one member's ``forward`` draws in training for these inputs, on the CPU; None for nothing."""


class Ensemble(nn.Module):
    """Many models of one architecture side by side: restarts, or the same network on many tasks.

    Every parameter and buffer, every input and output has a leading member axis. Members have nothing to do with each
    other: a loss that is the sum of theirs gives each its own gradients, and an optimiser that works elementwise trains
    each as if it were alone (see ``memnet.ClippedSGD`` for gradients clipped by their norm). A member begins with the
    weights, and draws the noise, of a model made and trained after ``torch.manual_seed(seed + number)``.

    The network's ``forward`` is run for all members at once by ``torch.func``, so it takes and returns tensors only and
    must not let the numbers in them decide what is done. One that draws random numbers should do so by ``TakesNoise``;
    others draw for each member from torch's own generator. Where there is a kernel for the network it takes over. Use
    ``member`` to look at one model alone, as ``memnet.record`` does.

    >>> import torch, memnet
    >>> ensemble = memnet.Ensemble(lambda: torch.nn.Linear(3, 2), num_members=5)
    >>> ensemble(torch.zeros(5, 8, 3)).shape
    torch.Size([5, 8, 2])

    Args:
        network: makes one model. Modules that it puts into all of them are copied, so their weights begin alike.
        num_members: how many there are.
        seed: of the first member; the others have the numbers after it.

    Raises:
        ValueError: ``num_members`` is not positive; in forward, if an input has not one entry for each member.
    """

    def __init__(self, network: Callable[[], nn.Module], num_members: int, seed: int = 1):
        super().__init__()
        self.num_members = check_positive("num_members", num_members)
        self.make_network = network
        self.generators = []
        members = []
        for number in range(num_members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + number)
                members.append(self._make())
                self.generators.append(torch.Generator().set_state(torch.get_rng_state()))
        self.network = _stack(members)

    def forward(self, *inputs: Shaped[Tensor, "member ..."]) -> Shaped[Tensor, "member ..."]:
        """What each member makes of its own inputs."""
        for tensor in inputs:
            if tensor.dim() == 0 or len(tensor) != self.num_members:
                raise ValueError(
                    f"an input has shape {tuple(tensor.shape)}, but must have one entry for each of the "
                    f"{self.num_members} members in front."
                )
        noise = None
        if isinstance(self.network, TakesNoise):
            self.network.check_inputs(*inputs)
            noise = self._draw(*inputs) if self.training else None
        kernel = kernels.find_memory_network(self.network, *inputs)
        if kernel is not None:
            return kernel(self.network, *inputs, noise)
        if noise is not None:
            inputs = (*inputs, noise)

        def one(tensors: dict[str, Tensor], *own: Tensor) -> Tensor:
            # Shared tensors are all named, and torch's own way with them loses those of shared modules.
            return torch.func.functional_call(self.network, tensors, own, tie_weights=False)

        return torch.func.vmap(one, randomness="different")(self.stacked(), *inputs)

    def stacked(self) -> dict[str, Shaped[Tensor, "member ..."]]:
        """The parameters and buffers of each of the network's modules by name."""
        return {
            f"{path}.{name}" if path else name: tensor
            for path, module in self.network.named_modules()
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]
            if tensor is not None
        }

    def member(self, number: int) -> nn.Module:
        """One member as a plain model with tensors of its own.

        Args:
            number: which, from 0.

        Raises:
            ValueError: there is no such member.
        """
        if not 0 <= number < self.num_members:
            raise ValueError(f"number is {number}, but the members are numbered 0 to {self.num_members - 1}.")
        with torch.random.fork_rng(devices=[]):
            member = self._make()
        member.load_state_dict({name: tensor[number] for name, tensor in self.network.state_dict().items()})
        return member.to(next(iter(self.stacked().values())).device).train(self.training)

    def _make(self) -> nn.Module:
        # What comes out of a configuration gives all its networks the same parts.
        return copy.deepcopy(self.make_network())

    def _draw(self, *inputs: Tensor) -> Tensor | None:
        assert isinstance(self.network, TakesNoise)
        drawn = [
            self.network.draw(*own, generator=generator)
            for *own, generator in zip(*inputs, self.generators, strict=True)
        ]
        present = [noise for noise in drawn if noise is not None]
        return torch.stack(present) if present else None

    def get_extra_state(self) -> Tensor:
        """Where the members' generators are, saved with the weights."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def set_extra_state(self, state: Tensor) -> None:
        """Goes on from there.

        Args:
            state: what ``get_extra_state`` returned.
        """
        for generator, own in zip(self.generators, state.cpu(), strict=True):
            generator.set_state(own.clone())


def _stack(members: list[nn.Module]) -> nn.Module:
    """The first model, with the tensors of all stacked in place of its own; what its modules share stays shared."""
    model = members[0]
    stacked: dict[Tensor, Tensor] = {}
    for name, module in model.named_modules():
        others = [member.get_submodule(name) for member in members]
        for key, parameter in module._parameters.items():
            if parameter is not None:
                if parameter not in stacked:
                    together = torch.stack([other.get_parameter(key).detach() for other in others])
                    stacked[parameter] = nn.Parameter(together, parameter.requires_grad)
                module._parameters[key] = stacked[parameter]
        for key, buffer in module._buffers.items():
            if buffer is not None:
                if buffer not in stacked:
                    stacked[buffer] = torch.stack([other.get_buffer(key) for other in others])
                module._buffers[key] = stacked[buffer]
    return model
