"""What the initialisations are tried on."""

from contracts.tries import Try

TRIES: dict[str, tuple[Try, ...]] = {
    "forget_bias": (
        Try("rnn-lstm-default-150", cures=("UG401",)),
        Try("rnn-gru-shut-12", cures=("UG405",)),
        Try("rnn-lstm-every-step-250", {"bias": 4.0}, cures=("UG404",)),
    ),
    "chrono": (
        Try("rnn-gru-default-150", cures=("UG401",)),
        Try("rnn-lstm-shut-12", cures=("UG405",)),
        Try("rnn-gru-every-step-250", cures=("UG404",)),
    ),
    "irnn": (
        Try("rnn-cell-default-120", cures=("UG401",)),
        Try("rnn-relu-identity-1.2", cures=("UG402",)),
        Try("rnn-tanh-chaotic", cures=("UG402", "UG403")),
        Try("rnn-tanh-every-step-200", cures=("UG404",)),
        Try("rnn-relu-chain-12", cures=("UG406",)),
    ),
}
