"""A made-up but realistic report: a Post-LN transformer whose gradient shrinks from block to block."""

import math
import random
from collections.abc import Sequence

from report.sample_findings import findings

from unitygain._types import Profile, Site, Skipped
from unitygain.report import Report

PARTS = ("self_attn", "self_attn.out_proj", "norm1", "linear1", "activation", "linear2", "norm2")
WEIGHTS = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "norm1.weight", "linear1.weight")
WEIGHTS += ("linear2.weight", "norm2.weight")
SHRINK = 0.62


class Draft:
    """Draws the profiles of a model with `blocks` blocks under one seed."""

    def __init__(self, blocks: int, seed: int = 0) -> None:
        self.blocks = [Site(f"encoder.layers.{k}") for k in range(blocks)]
        self.leaves = [Site(f"{b.path}.{part}") for b in self.blocks for part in PARTS]
        self.leaves = [Site("embed"), *self.leaves, Site("head")]
        self.weights = [Site(f"{b.path}.{name}") for b in self.blocks for name in WEIGHTS]
        self.random = random.Random(seed)
        self.profiles: dict[str, Profile] = {}

    def noisy(self, centre: float, spread: float = 0.05) -> float:
        return centre * math.exp(self.random.gauss(0, spread))

    def add(
        self, name: str, unit: str, sites: Sequence[Site], values: Sequence[float], **more: object
    ) -> None:
        self.profiles[name] = Profile(name, unit, tuple(sites), tuple(values), **more)  # type: ignore[arg-type]

    def depth(self, leaf: int) -> float:
        """Blocks between a leaf and the loss."""
        return len(self.blocks) - (leaf - 1) / len(PARTS)

    def signals(self) -> None:
        leaves, types = self.leaves, ("MultiheadAttention", "Linear", "LayerNorm", "Linear", "ReLU", "Linear")
        labels = ("Embedding", *(types[k % 6] for k in range(len(leaves) - 2)), "Linear")
        act = [self.noisy(1.0 if "norm" in s.path else 0.55, 0.15) for s in leaves]
        grad = [self.noisy(2e-3 * SHRINK ** self.depth(k), 0.2) for k in range(len(leaves))]
        self.add("act_rms", "rms of the output", leaves, act, labels=labels)
        self.add("act_absmax", "largest |output|", leaves, [a * self.noisy(4.1) for a in act], labels=labels)
        self.add("act_frac_nonfinite", "fraction of the output", leaves, [0.0] * len(leaves))
        self.add("grad_rms", "rms of dL/d(output)", leaves, grad, labels=labels)
        self.add("grad_frac_nonfinite", "fraction of dL/d(output)", leaves, [0.0] * len(leaves))
        self.exponents(leaves, grad)
        under = [min(1.0, 6e-8 / g / 3) for g in grad]
        rows = tuple((u, u * 1e-9, min(1, u * 8e3), min(1, u * 260)) for u in under)
        columns = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
        facts = {"loss_scale_float16": 65536.0, "loss_scale_bfloat16": 1.0}
        unit = "fraction of non-zero dL/d(output) below the smallest subnormal"
        self.add("grad_frac_underflow", unit, leaves, under, columns=columns, rows=rows, facts=facts)
        acts = [s for s in leaves if s.path.endswith("activation")]
        self.add("act_frac_dead", "fraction of units", acts, [self.noisy(0.02, 0.5) for _ in acts])
        self.add("act_frac_saturated", "fraction of entries", acts, [self.noisy(0.5) for _ in acts])

    def exponents(self, sites: Sequence[Site], scale: Sequence[float]) -> None:
        rows = []
        for rms in scale:
            middle = math.log2(rms) + 160 - 1
            bell = (math.exp(-((k - middle) ** 2) / (18 if k < middle else 3)) for k in range(291))
            rows.append(tuple(float(round(262_144 * b / 6)) for b in bell))
        columns = tuple(str(e) for e in range(-160, 131))
        heads = [row[0] for row in rows]
        unit = "count of entries with 2^e <= |dL/d(output)| < 2^(e+1)"
        self.add("grad_exponents", unit, sites, heads, columns=columns, rows=tuple(rows))

    def trunk(self) -> None:
        blocks = self.blocks
        count = len(blocks)
        back = [self.noisy(SHRINK, 0.06) for _ in blocks]
        ahead = [self.noisy(1.0, 0.02) for _ in blocks]
        for name, gains in (("forward_gain", ahead), ("backward_gain", back)):
            slope = sum(20 * math.log10(g) for g in gains) / count
            facts = {
                "gain_per_block": 10 ** (slope / 20),
                "slope_db": slope,
                "slope_db_low": slope - 0.21,
                "slope_db_high": slope + 0.21,
                "loop_db": slope * count,
                "depth": count,
            }
            self.add(
                name,
                "rms out over rms in" if "for" in name else "norm of dL/d(in) over norm of dL/d(out)",
                blocks,
                gains,
                facts=facts,
            )
        self.parts(back)
        junctions = [*blocks, Site(blocks[-1].path, leaf="(out)")]
        grads = [2e-3]
        for gain in reversed(back):
            grads.append(grads[-1] * gain)
        self.add("entry_rms", "rms at the junction", junctions, [self.noisy(1.0, 0.02) for _ in junctions])
        self.add("entry_grad_rms", "rms of dL/d(junction)", junctions, grads[::-1])
        sigma = [
            tuple(sorted((self.noisy(2.1 * 0.8**k, 0.1) for k in range(5)), reverse=True)) for _ in blocks
        ]
        self.add(
            "jacobian_sigma_max",
            "largest singular value",
            blocks,
            [r[0] for r in sigma],
            columns=tuple(f"sigma_{k + 1}" for k in range(5)),
            rows=tuple(sigma),
        )
        self.add(
            "rms_gain",
            "norm_F(J)/sqrt(n_out)",
            blocks,
            [g * 1.02 for g in back],
            error=tuple(0.03 * g for g in back),
            facts={"probes": 8},
        )
        cosine = [1 - 0.7 * 0.93**k for k in range(count)]
        self.add("token_cosine", "mean pairwise cosine", blocks, cosine)
        self.add(
            "effective_rank",
            "exp entropy of the spectrum over its maximum",
            blocks,
            [1.1 - c for c in cosine],
        )
        self.chain()

    def parts(self, gains: Sequence[float]) -> None:
        columns = ("weights", "activation", "normalisation", "attention", "skip", "branch", "open_fraction")
        rows = []
        for gain in gains:
            weights, activation = self.noisy(0.93), self.noisy(0.86)
            norm = gain / (weights * activation * 0.97)
            rows.append((weights, activation, norm, 0.97, 1.0, self.noisy(0.3), self.noisy(0.5, 0.02)))
        unit = "norm of dL/d(in) over norm of dL/d(out)"
        self.add("gain_parts", unit, self.blocks, gains, columns=columns, rows=tuple(rows))

    def chain(self) -> None:
        three = [Site(f"(model).({name})") for name in ("bound", "typical", "worst")]
        self.add("chain_gain", "log10 of the gain of the whole chain", three, (21.9, -5.0, -2.9))
        spectrum = tuple(-3 - 9 * (k / 127) ** 1.4 for k in range(128))
        self.add(
            "log_spectrum",
            "log10 of the condition number",
            [Site("encoder.layers")],
            (9.0,),
            rows=(spectrum,),
        )

    def parameters(self) -> None:
        weights = self.weights
        grads = [1e-3 * SHRINK ** (len(self.blocks) - k / len(WEIGHTS)) for k in range(len(weights))]
        self.add(
            "param_rms",
            "rms",
            weights,
            [self.noisy(0.03) for _ in weights],
            labels=("float32",) * len(weights),
        )
        self.add(
            "param_grad_rms", "rms of dL/d(parameter)", weights, grads, labels=("float32",) * len(weights)
        )
        self.add("param_grad_frac_zero", "fraction", weights, [0.0] * len(weights))
        self.add(
            "param_trainable",
            "1 trainable, 0 frozen",
            weights,
            [1.0] * len(weights),
            labels=("in optimizer",) * len(weights),
        )
        self.add(
            "update_ratio", "rms(update) over rms(parameter)", weights, [self.noisy(0.03) for _ in weights]
        )
        linear = [s for s in weights if "linear" in s.path]
        self.add("weight_gain", "sqrt(fan_in * var)", linear, [self.noisy(0.58, 0.01) for _ in linear])
        self.phase(linear)
        self.add("weight_spectral_norm", "operator norm", linear, [self.noisy(1.15, 0.02) for _ in linear])

    def phase(self, linear: list[Site]) -> None:
        rows = [(self.noisy(0.34, 0.01), self.noisy(0.01, 0.1), 0.016, 1.0, 0.56, 0.56) for _ in linear]
        facts: dict[str, float | str] = {"phi": "relu", "sigma_w_shown": 2.0, "sigma_b_shown": 0.5}
        facts |= {"settles_to": math.sqrt(2), "chi_1 = 0.5": "1,0 1,0.65", "chi_1 = 1": "1.414,0"}
        columns = ("sigma_w2", "sigma_b2", "q_star", "c_star", "xi_c", "xi_grad")
        self.add(
            "phase_point",
            "chi_1",
            linear,
            [row[0] / 2 for row in rows],
            columns=columns,
            rows=tuple(rows),
            labels=("relu: ordered",) * len(rows),
            facts=facts,
        )

    def ends(self) -> None:
        whole = [Site("")]
        self.add("input_rms", "rms", [Site("", leaf="(input 0)")], [1.0])
        self.add("input_grad_rms", "rms of dL/d(input)", [Site("", leaf="(input 0)")], [3.2e-9])
        self.add("logit_grad_absmax", "largest |p - y|", whole, [0.99], facts={"loss": 4.6, "classes": 96})
        self.add("loss_value", "loss", whole, [4.61], facts={"expected": 4.564, "kind": "cross entropy"})
        heads = [Site(f"{b.path}.self_attn", leaf="(softmax)") for b in self.blocks]
        self.add("attention_logit_absmax", "largest |logit|", heads, [self.noisy(2.2, 0.2) for _ in heads])
        self.add("attention_entropy", "entropy over ln n", heads, [self.noisy(0.97, 0.005) for _ in heads])
        steps = [Site("rnn", time=t) for t in range(200)]
        fade = [1e-2 * 0.72 ** (199 - t) for t in range(200)]
        facts = {"slope_db_per_step": -2.85, "steps": 200}
        self.add("time_grad_rms", "rms of dL/dx_t", steps, fade, facts=facts)


def make_report(blocks: int = 24, seed: int = 0) -> Report:
    """Return a report with every profile that a rule reads."""
    draft = Draft(blocks, seed)
    draft.signals()
    draft.trunk()
    draft.parameters()
    draft.ends()
    case = {
        "name": f"post-ln-{blocks}",
        "parameters": 7_100_416,
        "batch": "input (16, 128) int64",
        "loss": 4.6093,
        "seed": 0,
        "torch": "2.13.0",
        "dtype": "float32",
        "device": "cpu",
        "initialisation": "factory, seed 0",
        "subject": "worked on a copy",
    }
    skipped = (
        Skipped("embed", "its output is an index, which has no gradient"),
        Skipped("conv_operator_norm", "the model has no convolution"),
    )
    found = findings(draft.profiles, draft.blocks, draft.leaves[1], draft.weights[0])
    return Report(case, draft.profiles, found, skipped, 12.34)
