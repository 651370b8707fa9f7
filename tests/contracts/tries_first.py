"""What the remedies that take causes away are tried on."""

from contracts.tries import Try

TRIES: dict[str, tuple[Try, ...]] = {
    "rescale_weights": (
        Try("mlp-relu-default-24", {"gain": 2**0.5}, cures=("UG101",)),
        Try("cnn-default-20", {"gain": 2**0.5, "sites": "blocks.*"}, cures=("UG101",)),
        Try("rnn-tanh-default-150", {"gain": 1.0, "only": "weight_hh_l*"}, cures=("UG404",)),
        Try("generative-generator", {"gain": 1.0}),
        Try("transformer-post-norm-torch-4", {"gain": 1.0}),
    ),
    "zero_biases": (
        Try("mlp-relu-born-dead", {}, cures=("UG206",)),
        Try("rnn-lstm-28", {}),
        Try("transformer-pre-norm-torch-12", {}),
    ),
    "scale_branch": (
        Try("mlp-residual-unscaled-40", {"sites": "[0-9]*", "factor": 0.1}, cures=("UG102", "UG201")),
        Try("cnn-skip-no-norm-30", {"sites": "blocks.*", "factor": 0.1}, cures=("UG102", "UG201", "UG205")),
        Try("transformer-post-norm-24", {"sites": "blocks.*.attention", "factor": 0.1}, cures=("UG205",)),
        Try(
            "transformer-post-norm-torch-24",
            {"sites": "encoder.layers.*.self_attn", "factor": 0.1},
            cures=("UG205",),
        ),
    ),
    "scale_head": (
        Try("loss-loud-head", {"factor": 0.05}, cures=("UG605",)),
        Try("loss-loud-head-lstm", {"factor": 0.05}, cures=("UG605",)),
        Try("mlp-relu-he-20", {"factor": 0.1}),
        Try("cnn-he-12", {"factor": 0.1, "site": "head"}),
    ),
    "swap_activation": (
        Try("mlp-sigmoid-default-12", {"of": "Sigmoid"}, cures=("UG101",)),
        Try("cnn-he-12", {"to": "GELU"}),
    ),
    "bypass_norm": (
        Try("cnn-batchnorm-no-skip-50", {}, cures=("UG102",)),
        Try("transformer-pre-norm-12", {"sites": "blocks.*"}),
    ),
    "open_gates": (
        Try("rnn-lstm-default-150", {"bias": 4.0}, cures=("UG401",)),
        Try("rnn-gru-default-150", {"bias": 4.0}, cures=("UG401",)),
    ),
    "calm_attention": (
        Try("transformer-loud-attention", {"factor": 0.1}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {"factor": 0.1}, cures=("UG701",)),
    ),
    "change_precision": (Try("soft", {"precision": None}),),
    "drop_output_softmax": (
        Try("softmax-twice", {}, cures=("UG606",)),
        Try("softmax-twice-cnn", {}, cures=("UG606",)),
        Try("soft", {}),
    ),
    "loss_scale": (
        Try("float16-small-loss", {"scale": 2.0**14}, cures=("UG501",)),
        Try("float16-small-loss-cnn", {"scale": 2.0**14}, cures=("UG501",)),
        Try("mlp-relu-he-20", {"scale": 8.0}),
    ),
    "lower_learning_rate": (
        Try("step-sgd-huge", {"factor": 1e-3}, cures=("UG601", "UG611")),
        Try("step-sgd-tiny", {"factor": 1e5}, cures=("UG602",)),
        Try("soft", {"factor": 0.1}),
        Try("mlp-relu-he-20", {"factor": 0.1}),
    ),
    "lower_weight_decay": (
        Try("decay-coupled-adam", {"factor": 1e-3}, cures=("UG609",)),
        Try("decay-of-matrices", {"factor": 1e-3}, cures=("UG609",)),
        Try("decay-decoupled", {"factor": 0.0}),
    ),
    "swap_loss": (Try("game-points-won", {"variant": "non_saturating"}, cures=("UG704",)),),
    "unfreeze": (
        Try("frozen-in-between", {}, cures=("UG603",)),
        Try("frozen-untrained", {}, cures=("UG603",)),
        Try("soft", {}),
    ),
    "unit_inputs": (
        Try("transformer-loud-inputs", {}, cures=("UG605", "UG607", "UG701", "UG702")),
        Try("mlp-tanh-inputs-in-hundreds", {}, cures=("UG204", "UG607")),
        Try("generative-denoiser", {}),
    ),
}
