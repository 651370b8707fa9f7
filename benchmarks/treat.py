"""Time to a verified winner on Post-LN transformers of 1 M and 10 M parameters: targets 2 and 15 minutes.

    python benchmarks/treat.py [--small]

The patient is the demo's block, stacked to the size. The time is that of ``treat`` with everything in it:
checks, diagnosis, trials. Memory: the most that the process ever held, a process for each size.
"""

import argparse
import pathlib
import subprocess
import sys
import time
from json import dumps, loads
from typing import Any

import torch
from environment import high_water, keep
from torch import Tensor, nn

import unitygain as ug

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples"))
from post_ln_transformer import Block, compute_loss, read_prose

CONTEXT, HEADS = 32, 4
# Width, blocks, batch, seconds for the trials, and the target in seconds for everything.
SIZES = {
    "small": (32, 16, 4, 15, 0),
    "1M": (64, 20, 8, 75, 120),
    "10M": (192, 22, 8, 600, 900),
}


class CharacterModel(nn.Module):
    """The demo's model of another size."""

    def __init__(self, characters: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, HEADS) for _ in range(depth))
        self.head = nn.Linear(width, characters)
        for parameter in (*self.blocks.parameters(), *self.head.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, time) characters to (batch, time, characters) logits."""
        time = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(time, device=tokens.device)
        x = self.embedding(tokens) + self.position(torch.arange(time, device=tokens.device))
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x)


def make_case(size: str) -> ug.Case:
    """Return the patient of that size."""
    width, depth, batch, _, _ = SIZES[size]
    prose = read_prose()
    characters = sorted(set(prose))
    codes = torch.tensor([characters.index(c) for c in prose[:100_000]])
    starts = torch.randint(len(codes) - CONTEXT, (4, batch), generator=torch.Generator().manual_seed(0))
    return ug.Case(
        lambda: CharacterModel(len(characters), width, depth),
        loss=compute_loss,
        data=[torch.stack([codes[s : s + CONTEXT] for s in row]) for row in starts],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3),
    )


def measure(size: str) -> dict[str, Any]:
    """Treat the patient of that size and return what it took."""
    *_, budget, target = SIZES[size]
    case = make_case(size)
    started = time.perf_counter()
    report = ug.treat(case, budget=budget)
    seconds = time.perf_counter() - started
    best = report.best
    return {
        "parameters": report.case["parameters"],
        "seconds": round(seconds, 1),
        "target_seconds": target,
        "of_it_diagnosis": round(report.seconds, 1),
        "conclusion": report.conclusion,
        "winner": best.name if best else None,
        "steps": report.trials[0].steps if report.trials else 0,
        "trials": {trial.name[:80]: [trial.verdict, trial.loss, trial.seeds] for trial in report.trials},
        "in_time_and_verified": best is not None and seconds <= target,
        "peak_bytes": high_water(),
        "parameter_bytes": 4 * int(report.case["parameters"]),
    }


def main() -> None:
    """Measure every size in a process of its own."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--small", action="store_true", help="only the small patient, to see that it works")
    asked.add_argument("--one", choices=SIZES, help="measure this size here and print it")
    given = asked.parse_args()
    if given.one:
        print(dumps(measure(given.one)))
        return
    found = {}
    for size in ("small",) if given.small else ("1M", "10M"):
        words = [sys.executable, __file__, "--one", size]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found[size] = loads(done.stdout.splitlines()[-1])
    if given.small:
        print(dumps(found, indent=1))
    else:
        keep("treat", found)


if __name__ == "__main__":
    main()
