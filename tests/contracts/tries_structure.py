"""What the remedies that change the architecture are tried on."""

from contracts.tries import Try

TRIES: dict[str, tuple[Try, ...]] = {
    "pre_norm": (
        Try("transformer-post-norm-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-torch-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-3", {}),
        Try("transformer-post-norm-torch-4", {}),
    ),
}
