"""What the remedies of weights and of training are tried on."""

from collections.abc import Callable

import torch
from contracts.tries import Try
from torch import nn
from zoo import circuits, denoisers, games, recurrent, sound
from zoo.optimizers import adam

from unitygain import theory
from unitygain._case import Case


class Asked(circuits.Circuit):
    """A circuit that tells the odds of |0...0>, of all qubits at once, or of 0 in the mean over each."""

    def forward(self, x: torch.Tensor, local: bool = False) -> torch.Tensor:
        odds = self.state().abs().square()
        each = [odds.select(qubit, 0).sum() for qubit in range(self.qubits)]
        return x * (torch.stack(each).mean() if local else odds.flatten()[0])


def asked(qubits: int, layers: int) -> Case:
    """Return a circuit of few layers whose cost asks all qubits at once, with a local one beside it."""
    local = {"local_cost": lambda model, x: x - model(x, local=True)}
    return Case(Asked(qubits, layers), lambda model, x: x - model(x), [torch.ones(())], variants=local)


def loop() -> Case:
    """A recurrent network with an optimizer instance over groups."""
    made = recurrent.case(recurrent.Reader(recurrent.noisy(4.0)), 12)
    groups = [{"params": made.model.layer.parameters()}, {"params": made.model.head.parameters(), "lr": 0.5}]
    made.optimizer = torch.optim.SGD(groups, 0.1)
    return made


def judge(parts: Callable[[], tuple[nn.Module, nn.Module]], *shape: int) -> Case:
    """The training of a discriminator on real and generated samples."""
    model = games.Game(*parts())
    noise = (32, 8, 1, 1) if parts is games.images else (32, 8)

    def loss(model: games.Game, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        fake = model.generator(batch[1]).detach()
        return model.discriminator(fake).mean() - model.discriminator(batch[0]).mean()

    return Case(model, loss, [(torch.randn(32, *shape), torch.randn(noise))])


def pixels() -> Case:
    """A diffusion model of images with a bounded loss beside its own."""
    bounded = denoisers.error("noise", denoisers.one)
    return denoisers.case(denoisers.Pixels(), "noise", denoisers.bound, (32, 1, 6, 6), min_snr=bounded)


def decayed() -> Case:
    """A recurrent network whose RMSprop, an instance, has a decay that outweighs the gradient."""
    made = sound.case("recurrent", optimizer=None)
    made.optimizer = torch.optim.RMSprop(made.model.parameters(), 3e-3, momentum=0.5, weight_decay=0.7)
    return made


WEIGHTS = theory.bound_weights(theory.linear_schedule())
# Cases beside the zoo's, by name.
CASES = {
    "soft-loop": loop,
    "game-judge": lambda: judge(games.points, 2),
    "game-judge-images": lambda: judge(games.images, 1, 8, 8),
    "denoiser-pixels": pixels,
    "circuit-local": lambda: circuits.all_zero(4, 7),
    "circuit-local-x": lambda: circuits.all_zero(3, 2, "x"),
    "circuit-asked": lambda: asked(6, 2),
    "circuit-y": lambda: circuits.case(4, 7),
    "circuit-x": lambda: circuits.case(3, 10, "x"),
    "soft-decay-recurrent": decayed,
    "soft-mlp-he": lambda: sound.case("mlp", optimizer=adam(1e-3)),
}
TRIES: dict[str, tuple[Try, ...]] = {
    "clip_gradients": (
        Try("step-sgd-huge", {}, cures=("UG601",)),
        Try("step-sum-of-losses", {}, cures=("UG601",)),
        Try("rnn-relu-identity-1.2", {"threshold": 1.0}),
    ),
    "warm_up": (
        Try("step-adam-huge", {}, cures=("UG601",)),
        Try("step-lstm-huge", {}, cures=("UG601",)),
        Try("step-adam-warm-up", {}),
    ),
    "use_adamw": (
        Try("step-sgd-tiny", {}, cures=("UG602",)),
        Try("decay-coupled-adam", {}, cures=("UG609",)),
        Try("step-bfloat16-lost", {}, cures=("UG602",)),
        Try("soft-decay-recurrent", {}, cures=("UG609",)),
        Try("step-clipped-sum", {}),
    ),
    "spectral_norm": (
        Try("rnn-tanh-chaotic", {}, cures=("UG402", "UG403")),
        Try("game-points-won", {}, cures=("UG704",)),
        # A bias makes this one sure, which no norm of a weight bounds.
        Try("game-tables-sure", {}),
        Try("flow-additive-loud", {}, cures=("UG703",)),
    ),
    "spectral_cap": (
        Try("rnn-lstm-chaotic", {}, cures=("UG402", "UG403")),
        Try("rnn-relu-chain-12", {}, cures=("UG406",)),
        Try("flow-autoregressive-loud", {}, cures=("UG703",)),
        Try("cnn-he-12", {}),
    ),
    "orthogonal_weights": (
        Try("rnn-tanh-chaotic", {}, cures=("UG402", "UG403")),
        Try("rnn-relu-identity-1.2", {}, cures=("UG402",)),
        Try("rnn-cell-default-120", {}),
        Try("rnn-tanh-default-150", {}, cures=("UG404",)),
        Try("rnn-tanh-chain-16", {}, cures=("UG406", "UG401")),
    ),
    "sigma_reparam": (
        Try("transformer-loud-attention", {}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {}, cures=("UG701",)),
    ),
    "decay_to_radius": (Try("soft-loop", {"radius": 0.5}), Try("soft-mlp-he", {"radius": 0.5})),
    "gradient_flossing": (
        Try("rnn-tanh-default-150", {"iterations": 15, "steps": 20}, cures=("UG401", "UG404")),
        Try("rnn-cell-default-120", {"iterations": 15, "steps": 20}, cures=("UG401",)),
        Try("rnn-lstm-28", {"iterations": 2, "steps": 8}),
    ),
    "r1": (Try("game-judge", {}), Try("game-judge-images", {"gamma": 1.0, "every": 16})),
    "gradient_penalty": (Try("game-judge", {}), Try("game-judge-images", {})),
    "sequence_warmup": (
        Try("rnn-tanh-default-150", {}, cures=("UG401",)),
        Try("rnn-relu-identity-1.2", {"start": 4, "steps": 10}, cures=("UG402",)),
        Try("rnn-cell-default-120", {"axis": 1}),
    ),
    "identity_block_init": (
        Try("circuit-complex-9", {"names": "angles", "size": 3}, cures=("UG706",)),
        Try("circuit-real-15", {"names": "angles", "size": 5}, cures=("UG706",)),
        Try("circuit-y", {"names": "angles"}),
        Try("circuit-x", {"names": "angles", "size": 5}),
    ),
    "local_cost": (Try("circuit-asked", cures=("UG706",)), Try("circuit-local"), Try("circuit-local-x")),
    "min_snr": (
        Try("denoiser-points-sample-unbounded", {}, cures=("UG705",)),
        Try("denoiser-pixels", {}, cures=("UG705",)),
    ),
    "mirrored_diffusion_clip": (
        Try("denoiser-points-noise", {"weights": WEIGHTS}),
        Try("denoiser-rows-v-unbounded", {"weights": WEIGHTS}),
    ),
}
