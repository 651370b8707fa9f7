"""What the remedies that take causes away are tried on."""

from contracts.tries import Try

TRIES: dict[str, tuple[Try, ...]] = {
    "rescale_weights": (
        Try("mlp-relu-default-24", {"gain": 2**0.5}, cures=("UG101",)),
        Try("cnn-default-20", {"gain": 2**0.5, "sites": "blocks.*"}),
        Try("rnn-tanh-default-150", {"gain": 1.0, "only": "weight_hh_l*"}),
        Try("generative-generator", {"gain": 1.0}),
        Try("transformer-post-norm-torch-4", {"gain": 1.0}),
    ),
    "zero_biases": (
        Try("mlp-relu-born-dead", {}),
        Try("rnn-lstm-28", {}),
        Try("transformer-pre-norm-torch-12", {}),
    ),
    "scale_branch": (
        Try("mlp-residual-unscaled-40", {"sites": "[0-9]*", "factor": 0.1}),
        Try("cnn-skip-no-norm-30", {"sites": "blocks.*", "factor": 0.1}),
        Try("transformer-post-norm-24", {"sites": "blocks.*.attention", "factor": 0.1}),
        Try("transformer-post-norm-torch-24", {"sites": "encoder.layers.*.self_attn", "factor": 0.1}),
    ),
    "scale_head": (Try("mlp-relu-he-20", {"factor": 0.1}), Try("cnn-he-12", {"factor": 0.1, "site": "head"})),
    "swap_activation": (Try("mlp-sigmoid-default-12", {"of": "Sigmoid"}), Try("cnn-he-12", {"to": "GELU"})),
    "bypass_norm": (
        Try("cnn-batchnorm-no-skip-50", {}),
        Try("transformer-pre-norm-12", {"sites": "blocks.*"}),
    ),
    "open_gates": (Try("rnn-lstm-default-150", {"bias": 4.0}), Try("rnn-gru-default-150", {"bias": 4.0})),
    "calm_attention": (
        Try("transformer-loud-attention", {"factor": 0.1}),
        Try("transformer-loud-attention-torch", {"factor": 0.1}),
    ),
    "change_precision": (Try("soft", {"precision": None}),),
    "drop_output_softmax": (Try("soft", {}),),
    "loss_scale": (Try("mlp-relu-he-20", {"scale": 8.0}),),
    "lower_learning_rate": (Try("soft", {"factor": 0.1}), Try("mlp-relu-he-20", {"factor": 0.1})),
    "lower_weight_decay": (
        Try("decay-coupled-adam", {"factor": 1e-3}, cures=("UG609",)),
        Try("decay-of-matrices", {"factor": 1e-3}, cures=("UG609",)),
        Try("decay-decoupled", {"factor": 0.0}),
    ),
    "swap_loss": (Try("game-points-won", {"variant": "non_saturating"}),),
    "unfreeze": (Try("soft", {}),),
    "unit_inputs": (Try("mlp-tanh-inputs-in-hundreds", {}), Try("generative-denoiser", {})),
}
