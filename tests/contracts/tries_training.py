"""What the remedies of weights and of training are tried on."""

from contracts.tries import Try

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
        Try("step-bfloat16-lost", {}, cures=("UG602",)),
        Try("step-clipped-sum", {}),
    ),
}
