"""Steps that are too large or too small, and optimizers that hold the wrong parameters."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unitygain._case import Case
from zoo import sound
from zoo.patient import Patient, classify


def sgd(rate: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """Return a factory of SGD."""
    return lambda parameters: torch.optim.SGD(parameters, rate, **options)


def adam(rate: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """Return a factory of AdamW."""
    return lambda parameters: torch.optim.AdamW(parameters, rate, **options)


def coupled(rate: float, decay: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """Return a factory of Adam, whose decay is added to the gradient."""
    return lambda parameters: torch.optim.Adam(parameters, rate, weight_decay=decay, **options)


def matrices_decay(decay: float) -> Callable[[nn.Module], Any]:
    """Return a choice of groups in which only matrices and kernels decay."""

    def groups(model: nn.Module) -> Any:
        matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
        return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]

    return groups


def summed(model: nn.Module, batch: Any) -> torch.Tensor:
    """Cross-entropy, added up over the batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def bfloat(kind: str, optimizer: Callable[[Any], torch.optim.Optimizer]) -> Case:
    """Return a case whose weights are bfloat16, in which small updates are not seen."""
    inputs, labels = sound.batch(kind)
    return sound.case(kind, lambda m: m.bfloat16(), data=[(inputs.bfloat16(), labels)], optimizer=optimizer)


def falling(share: float, steps: int) -> Callable[[torch.optim.Optimizer], Any]:
    """Return a schedule that leaves this share of the rate after every so many steps."""
    return lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, steps, share)


def whispering() -> Case:
    """Return a perceptron of ever other widths, drawn with a gain of 0.02, under a usual rate."""
    widths = (sound.FEATURES, 28, 36, 44, 36, 28, 20)
    pairs = list(itertools.pairwise(widths))
    model = nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.LeakyReLU(0.2))))
    for layer in model[::2]:
        nn.init.xavier_normal_(layer.weight, gain=0.02)
        nn.init.zeros_(layer.bias)
    model.append(nn.Linear(widths[-1], sound.CLASSES))
    return Case(model, classify, [sound.batch("mlp")], sgd(0.1, momentum=0.9))


def held(kind: str, choose: Callable[[nn.Module], Any], after: Callable[[Any], None] | None = None) -> Case:
    """Return a case whose optimizer was built over what `choose` gives, before the model was changed."""
    model = sound.MODELS[kind]()
    optimizer = torch.optim.AdamW(choose(model), 1e-3)
    if after is not None:
        after(model)
    return Case(model, classify, [sound.batch(kind)], optimizer)


def new_head(model: Any) -> None:
    """Replace the last module of a sequence."""
    model[-1] = nn.Linear(model[-1].in_features, sound.CLASSES)


def frozen_stem(model: Any) -> None:
    """Freeze the first layer."""
    model[0].requires_grad_(False)


def zero_head(model: Any) -> None:
    """Start the head at zero."""
    nn.init.zeros_(sound.head(model).weight)


def warm_up(optimizer: torch.optim.Optimizer) -> Any:
    """Start a hundred-millionth of the way up."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) * 1e-8)


def sick() -> list[Patient]:
    """Return cases whose step or whose optimizer is wrong."""
    return sound.patients({
        "step-adam-huge": ("mlp", lambda: sound.case("mlp", optimizer=adam(1.0)), ("UG601",), ("UG611",)),
        "step-momentum-of-three-nines": (
            "mlp",
            lambda: sound.case("mlp", optimizer=sgd(0.3, momentum=0.999)),
            ("UG601",),
            (),
        ),
        "step-sgd-huge": ("cnn", lambda: sound.case("cnn", optimizer=sgd(30.0)), ("UG601", "UG611"), ()),
        "step-sum-of-losses": (
            "residual",
            lambda: sound.case("residual", loss=summed, optimizer=sgd(3.0)),
            ("UG601", "UG611"),
            (),
        ),
        "step-lstm-huge": (
            "recurrent",
            lambda: sound.case("recurrent", optimizer=adam(2.0)),
            ("UG601", "UG611"),
            (),
        ),
        "step-sgd-tiny": ("mlp", lambda: sound.case("mlp", optimizer=sgd(1e-7)), ("UG602",), ()),
        "step-behind-tiny-weights": ("mlp", whispering, ("UG602",), ("UG101", "UG202", "UG205", "UG503")),
        "step-sgd-from-scratch": (
            "residual",
            lambda: sound.case("residual", optimizer=sgd(1e-4)),
            ("UG602",),
            (),
        ),
        "step-adam-tiny": (
            "transformer",
            lambda: sound.case("transformer", optimizer=adam(1e-9)),
            ("UG602",),
            (),
        ),
        "step-adam-of-fine-tuning": (
            "recurrent",
            lambda: sound.case("recurrent", optimizer=adam(3e-7)),
            ("UG602",),
            (),
        ),
        "step-bfloat16-lost": ("cnn", lambda: bfloat("cnn", sgd(1e-9)), ("UG602",), ()),
        "step-bfloat16-mostly-lost": ("mlp", lambda: bfloat("mlp", adam(1e-4)), ("UG602",), ()),
        "step-adam-epsilon": (
            "transformer",
            lambda: sound.case("transformer", optimizer=adam(1e-3, eps=1.0)),
            ("UG602",),
            (),
        ),
        "step-schedule-of-epochs": (
            "residual",
            lambda: sound.case("residual", optimizer=adam(1e-3), schedule=falling(0.5, 1)),
            ("UG602",),
            (),
        ),
        "decay-coupled-adam": (
            "cnn",
            lambda: sound.case("cnn", optimizer=coupled(1e-3, 0.5)),
            ("UG609",),
            (),
        ),
        "decay-descent": (
            "mlp",
            lambda: sound.case("mlp", optimizer=sgd(0.05, momentum=0.9, weight_decay=0.8)),
            ("UG609",),
            (),
        ),
        "decay-decoupled": (
            "transformer",
            lambda: sound.case("transformer", optimizer=adam(2e-3, weight_decay=30.0)),
            ("UG609",),
            (),
        ),
        "decay-of-matrices": ("residual", lambda: held("residual", matrices_decay(60.0)), ("UG609",), ()),
        "optimizer-before-new-head": (
            "cnn",
            lambda: held("cnn", lambda m: m.parameters(), new_head),
            ("UG604",),
            (),
        ),
        "optimizer-of-a-copy": (
            "mlp",
            lambda: held("mlp", lambda m: copy.deepcopy(m).parameters()),
            ("UG604",),
            (),
        ),
        "optimizer-of-the-layers": (
            "transformer",
            lambda: held("transformer", lambda m: m.layers.parameters()),
            ("UG604",),
            (),
        ),
    })


def healthy() -> list[Patient]:
    """Return cases that look a little like those and train."""
    return sound.patients({
        "step-zero-head": ("mlp", lambda: sound.case("mlp", zero_head, optimizer=adam(1e-3)), (), ()),
        "step-zero-head-descent": ("mlp", lambda: sound.case("mlp", zero_head, optimizer=sgd(0.05)), (), ()),
        "step-adam-warm-up": (
            "transformer",
            lambda: sound.case("transformer", optimizer=adam(1e-3), schedule=warm_up),
            (),
            (),
        ),
        "step-schedule-of-batches": (
            "residual",
            lambda: sound.case("residual", optimizer=adam(1e-3), schedule=falling(0.5, 30)),
            (),
            (),
        ),
        "step-epsilon-of-inception": (
            "cnn",
            lambda: sound.case("cnn", optimizer=lambda p: torch.optim.RMSprop(p, 0.2, alpha=0.9, eps=1.0)),
            (),
            (),
        ),
        "step-bfloat16-large": ("mlp", lambda: bfloat("mlp", adam(3e-3)), (), ()),
        "step-clipped-sum": (
            "residual",
            lambda: sound.case(
                "residual",
                loss=summed,
                optimizer=sgd(0.05),
                clip=lambda parameters: nn.utils.clip_grad_norm_(list(parameters), 1.0),
            ),
            (),
            (),
        ),
        "step-momentum-of-two-nines": (
            "cnn",
            lambda: sound.case("cnn", optimizer=sgd(0.01, momentum=0.99, nesterov=True)),
            (),
            (),
        ),
        "step-not-yet-divided": (
            "recurrent",
            lambda: sound.case("recurrent", optimizer=lambda p: torch.optim.RAdam(p, 1e-3)),
            (),
            (),
        ),
        "step-fine-tuning": ("transformer", lambda: sound.case("transformer", optimizer=adam(1e-5)), (), ()),
        "decay-cnn-recipe": (
            "cnn",
            lambda: sound.case("cnn", optimizer=sgd(0.1, momentum=0.9, weight_decay=5e-4)),
            (),
            (),
        ),
        "decay-adam-recipe": ("mlp", lambda: sound.case("mlp", optimizer=coupled(1e-3, 1e-3)), (), ()),
        "decay-adamw-half": (
            "residual",
            lambda: sound.case("residual", optimizer=adam(1e-3, weight_decay=0.5)),
            (),
            (),
        ),
        "decay-of-two-groups": ("transformer", lambda: held("transformer", matrices_decay(0.1)), (), ()),
        "step-fine-tuning-norms": ("cnn", lambda: sound.case("cnn", optimizer=adam(1e-5)), (), ()),
        "optimizer-holds-frozen": (
            "mlp",
            lambda: held("mlp", lambda m: m.parameters(), frozen_stem),
            (),
            (),
        ),
    })
