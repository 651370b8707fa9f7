"""What the remedies that change the architecture are tried on."""

from contracts.tries import Try

TRIES: dict[str, tuple[Try, ...]] = {
    "pre_norm": (
        Try("transformer-post-norm-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-torch-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-3", {}),
        Try("transformer-post-norm-torch-4", {}),
    ),
    "add_residual": (
        Try("mlp-relu-default-24", {}, cures=("UG101", "UG205")),
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
        Try("mlp-sigmoid-default-12", {}),
    ),
    "gated_skip": (
        Try("mlp-tanh-default-24", {}, cures=("UG101",)),
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
    ),
    "insert_norm": (
        Try("mlp-relu-large-weights-16", {}, cures=("UG102", "UG201")),
        Try("cnn-default-20", {}, cures=("UG101",)),
        Try("mlp-relu-default-24", {"kind": "rms"}),
    ),
    "batchnorm_gamma": (Try("cnn-resnet-20", {}),),
    "swap_to_relu": (
        Try("mlp-sigmoid-default-12", {}, cures=("UG101", "UG205")),
        Try("mlp-tanh-default-24", {}, cures=("UG101",)),
    ),
    "restore_logit_scale": (Try("transformer-unscaled-attention", {}, cures=("UG701", "UG702")),),
    "qk_norm": (
        Try("transformer-loud-attention", {}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {}, cures=("UG701",)),
    ),
    "soft_cap": (
        Try("transformer-loud-attention", {"cap": 5.0}, cures=("UG701", "UG702")),
        Try("transformer-loud-inputs", {}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {}),
    ),
    "concat_skip": (
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
        Try("cnn-skip-no-norm-30", {}),
        Try("mlp-relu-default-24", {}, cures=("UG101", "UG205")),
    ),
    "gated_recurrence": (),  # a suggestion: it changes nothing, and says what to write
}
