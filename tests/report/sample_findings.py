"""What the rules might say of the made-up model: four findings, every severity, every status of a cause."""

from collections.abc import Mapping, Sequence

from unitygain._types import Cause, Finding, Profile, Site


def findings(
    profiles: Mapping[str, Profile], blocks: Sequence[Site], leaf: Site, weight: Site
) -> tuple[Finding, ...]:
    """Four findings, with every status that a cause can have."""
    gain = float(profiles["backward_gain"].facts["gain_per_block"])
    depth = len(blocks)
    causes = (
        Cause(
            "normalisation after the sum (Post-LN): every skip path passes through a LayerNorm, 0.81x each",
            "pre_norm",
            {"module": "encoder"},
            (0.9, 1.1),
            "confirmed",
            1.0,
        ),
        Cause(
            "weights: fan_in*var = 1/3 (PyTorch's default) gives 0.93x per branch",
            "he_init",
            {},
            (0.95, 1.05),
            "refuted",
            0.63,
            "the branch carries too little of the gradient to matter",
        ),
        Cause(
            "activation: 50 % of the channels are closed by the ReLU",
            note="no remedy takes this cause alone away",
        ),
    )
    fix = "encoder = nn.TransformerEncoder(\n    nn.TransformerEncoderLayer(512, 8, norm_first=True), 24\n)"
    message = (
        f"The gradient shrinks by {gain:.2f}x per block over {depth} blocks, from 2.0e-03 at the last "
        f"block to {2e-3 * gain**depth:.1e} at the first; at {2 * depth} blocks: "
        f"{2e-3 * gain ** (2 * depth):.0e}."
    )
    first = Finding(
        "UG101",
        "vanishing-gradient",
        "error",
        message,
        tuple(blocks),
        "backward_gain",
        gain,
        "norm of dL/d(in) over norm of dL/d(out), per block",
        0.85,
        "gain_per_block",
        (gain - 0.015, gain + 0.015),
        1.0,
        1e-12,
        causes,
        {"loop gain (dB)": -99.8, "slope interval (dB)": "-4.37 .. -3.95"},
        fix,
    )
    second = Finding(
        "UG501",
        "gradient-underflow",
        "warning",
        "71 % of the non-zero gradient entries of the first block fall below "
        "float16's smallest subnormal; a loss scale of 65,536 would bring them back.",
        (leaf,),
        "grad_frac_underflow",
        0.71,
        "fraction",
        0.05,
        evidence={"loss scale": 65536.0},
        fix="scaler = torch.amp.GradScaler(init_scale=65536.0)",
    )
    third = Finding(
        "UG204",
        "rank-collapse",
        "warning",
        "Tokens become alike: their mean cosine grows from 0.30 to 0.87 over the trunk.",
        tuple(blocks[-2:]),
        "token_cosine",
        0.87,
        "mean pairwise cosine",
        0.8,
        causes=(Cause("attention is close to uniform (entropy 0.97 of its maximum)"),),
    )
    fourth = Finding(
        "UG606",
        "update-ratio",
        "info",
        "One optimizer step moves the weights by 3 % of their rms.",
        (weight,),
        "update_ratio",
        0.03,
        "rms(update) over rms(parameter)",
        0.01,
    )
    return first, second, third, fourth
