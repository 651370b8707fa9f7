"""What the initialisations are tried on."""

from contracts.tries import Try

TRIES: dict[str, tuple[Try, ...]] = {
    "forget_bias": (
        Try("rnn-lstm-default-150", cures=("UG401",)),
        Try("rnn-gru-shut-12", cures=("UG405",)),
        Try("rnn-lstm-default-zero-300", {"bias": 4.0}, cures=("UG404",)),
    ),
    "chrono": (
        Try("rnn-gru-default-150", cures=("UG401",)),
        Try("rnn-lstm-shut-12", cures=("UG405",)),
        Try("rnn-lstm-default-zero-300", cures=("UG404",)),
    ),
    "activation_init": (
        Try("cnn-default-20", cures=("UG101", "UG205")),
        Try("mlp-relu-negative-weights", cures=("UG206",)),
        Try("zeros-in-a-row", cures=("UG603",)),
        Try("step-behind-tiny-weights", cures=("UG602",)),
        Try("copies-residual", cures=("UG207",)),
        Try("mlp-relu-large-weights-16", cures=("UG102", "UG201")),
        Try("mlp-relu-he-shrinking-30", cures=("UG202",)),
        Try("mlp-relu-one-layer-tiny", cures=("UG103",)),
        Try("mlp-selu-one-layer-loud", cures=("UG104",)),
        Try("mlp-relu-mostly-dead", cures=("UG203",)),
        Try("cnn-tanh-saturated", {"distribution": "uniform"}, cures=("UG204", "UG301")),
        Try("transformer-post-norm-torch-4"),
    ),
    "orthogonal_init": (
        Try("mlp-tanh-saturated", cures=("UG204", "UG301")),
        Try("rnn-lstm-chaotic", cures=("UG402", "UG403")),
        Try("rnn-relu-chain-12", cures=("UG406",)),
        Try("copies-recurrent", cures=("UG207",)),
        Try("mlp-relu-large-weights-16", cures=("UG102", "UG201")),
        Try("mlp-relu-default-24", cures=("UG101", "UG205")),
        Try("transformer-pre-norm-torch-12"),
    ),
    "delta_orthogonal_init": (
        Try("cnn-default-20", cures=("UG205", "UG101")),
        Try("cnn-one-layer-tiny", cures=("UG103",)),
        Try("cnn-tanh-saturated", cures=("UG204", "UG301")),
    ),
    "critical_init": (
        Try("mlp-relu-shrinking-forward-24", cures=("UG101", "UG202")),
        Try("cnn-tanh-saturated", cures=("UG204", "UG301")),
        Try("mlp-relu-large-weights-16", cures=("UG102", "UG201")),
        Try("mlp-relu-one-layer-tiny", cures=("UG103",)),
        Try("mlp-relu-default-24", cures=("UG205",)),
        Try("mlp-one-layer-loud", cures=("UG104",)),
        Try("generative-denoiser"),
    ),
    "irnn": (
        Try("rnn-cell-default-120", cures=("UG401",)),
        Try("rnn-relu-identity-1.2", cures=("UG402",)),
        Try("rnn-tanh-chaotic", cures=("UG402", "UG403")),
        Try("rnn-tanh-default-150", cures=("UG404",)),
        Try("rnn-relu-chain-12", cures=("UG406",)),
    ),
    "lsuv": (
        Try("cnn-tanh-saturated", cures=("UG204",)),
        Try("mlp-relu-large-weights-16", cures=("UG102", "UG201")),
        Try("mlp-relu-he-shrinking-30", cures=("UG101", "UG202")),
        Try("mlp-relu-one-layer-tiny", cures=("UG103",)),
        Try("mlp-selu-one-layer-loud", cures=("UG104",)),
        Try("transformer-post-norm-torch-4"),
    ),
    "unit_jacobian_init": (
        Try("mlp-relu-large-weights-16", cures=("UG201", "UG102")),
        Try("cnn-default-20", cures=("UG101",)),
        Try("mlp-relu-he-shrinking-30", cures=("UG202",)),
        Try("mlp-relu-one-layer-tiny", cures=("UG103",)),
        Try("mlp-selu-one-layer-loud", cures=("UG104",)),
    ),
    "gpt2_residual_scale": (
        Try("mlp-residual-unscaled-40", cures=("UG102", "UG201")),
        Try("cnn-skip-no-norm-30", cures=("UG201", "UG205")),
        Try("transformer-pre-norm-torch-12"),
    ),
    "skip_init": (
        Try("mlp-residual-unscaled-40", cures=("UG201", "UG102")),
        Try("transformer-post-norm-24", cures=("UG205",)),
        Try("transformer-post-norm-3"),
    ),
    "rezero": (
        Try("mlp-residual-unscaled-40", cures=("UG201", "UG102")),
        Try("transformer-post-norm-24", cures=("UG205",)),
        Try("transformer-post-norm-torch-4"),
    ),
    "layer_scale": (
        Try("cnn-skip-no-norm-30", cures=("UG201", "UG102", "UG205")),
        Try("transformer-pre-norm-12"),
    ),
    "fixup": (Try("mlp-residual-unscaled-40", cures=("UG102", "UG201")), Try("mlp-residual-scaled-24")),
    "deepnorm": (Try("transformer-post-norm-24", cures=("UG205",)), Try("transformer-post-norm-torch-4")),
    "admin": (Try("transformer-post-norm-torch-24", cures=("UG205",)), Try("transformer-post-norm-3")),
    "t_fixup": (Try("transformer-post-norm-24", cures=("UG205",)), Try("transformer-pre-norm-torch-12")),
    "log_prior_head_bias": (
        Try("loss-wrong-prior", cures=("UG605",)),
        Try("loss-wrong-prior-cnn", cures=("UG605",)),
    ),
}
