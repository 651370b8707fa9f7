"""How many steps a training has taken, told by the backward passes through its losses."""

from weakref import WeakKeyDictionary

from torch import Tensor, nn

from unitygain.probe.hooks import Hooks


class Steps:
    """Steps of each model that a loss is asked of: a copy begins at 0, a loss that is only read is none."""

    def __init__(self) -> None:
        self._taken = WeakKeyDictionary[nn.Module, int]()

    def of(self, model: nn.Module) -> int:
        """Return how many steps the model has taken."""
        return self._taken.get(model, 0)

    def count(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Return the loss, whose backward pass is a step of the model."""

        def step(gradient: Tensor) -> None:
            self._taken[model] = self.of(model) + 1

        if loss.requires_grad:
            Hooks().change_gradient(loss, step)
        return loss
