"""Token batches for a language model: from a text file, or drawn from the vocabulary and said to be so."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitygain.cli._faults import Fault, first_line, plain, quote, usage
from unitygain.cli._request import Request, read_text

BATCHES = 4
DEFAULT_LENGTH = 128
CHARACTERS_PER_TOKEN = 32
MASKED = 0.15
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")


def draw(folder: Path, config: Any, request: Request) -> tuple[Tensor, int | None, dict[str, str]]:
    """Return ids of shape (batches, batch_size, sequence_length), the mask's id, and what they are.

    Raises:
        Fault: If the length exceeds the model's positions, the text cannot be read, or its ids are not in
            the model's vocabulary.
    """
    vocabulary = _vocabulary(config)
    shape = (BATCHES, request.batch_size, _length(config, request))
    size = f"{shape[0]} batches of {shape[1]} x {shape[2]}"
    if request.text is None:
        return (
            _synthesise(config, vocabulary, shape, request.seed),
            None,
            _drawn(vocabulary, size, request.seed),
        )
    text = read_text(request.text, shape[0] * shape[1] * shape[2] * CHARACTERS_PER_TOKEN)
    name = plain(Path(request.text).name)
    tokenizer, reason = _tokenizer(folder)
    if tokenizer is None:
        said = {**_drawn(vocabulary, size, request.seed), "text": f"{name} was not used: {reason}"}
        return _synthesise(config, vocabulary, shape, request.seed), None, said
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)
    if ids.numel() == 0:
        raise Fault(f"{name} holds no token", name="E-TEXT", fix="give a longer text")
    if int(ids.max()) >= vocabulary:
        raise Fault(
            f"the tokenizer gives id {int(ids.max())}, but the model's vocabulary has {vocabulary}",
            name="E-TOKENIZER",
            fix="put the tokenizer that belongs to the model into the folder, or leave --text out",
        )
    needed = shape[0] * shape[1] * shape[2]
    repeated = f", its {ids.numel()} tokens repeated" if ids.numel() < needed else ""
    ids = ids.repeat(-(-needed // ids.numel()))[:needed].reshape(shape)
    return ids, tokenizer.mask_token_id, {"input": f"{name}, the folder's tokenizer{repeated}, {size}"}


def mask(ids: Tensor, mask_id: int | None, config: Any, seed: int) -> tuple[Tensor, Tensor, str]:
    """Return masked ids, labels (-100 where nothing is to be predicted), and what was done."""
    generator = torch.Generator().manual_seed(seed + 1)
    hidden = torch.rand(ids.shape, generator=generator) < MASKED
    hidden[..., 0] |= ~hidden.any(-1)
    if mask_id is None:
        other = _synthesise(config, _vocabulary(config), tuple(ids.shape), seed + 2)
        said = f"{MASKED:.0%} of the positions hold another drawn id"
    else:
        other = torch.full_like(ids, mask_id)
        said = f"{MASKED:.0%} of the positions, masked"
    return torch.where(hidden, other, ids), torch.where(hidden, ids, torch.full_like(ids, -100)), said


def _drawn(vocabulary: int, size: str, seed: int) -> dict[str, str]:
    said = (
        f"token ids drawn uniformly from the vocabulary of {vocabulary}, seed {seed}, {size}: not real text"
    )
    return {"input": said}


def _synthesise(config: Any, vocabulary: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Ids from the vocabulary, without padding and sentence marks, which models treat apart."""
    marks = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")]
    allowed = torch.ones(vocabulary, dtype=torch.bool)
    for mark in marks:
        if isinstance(mark, int) and 0 <= mark < vocabulary:
            allowed[mark] = False
    choices = allowed.nonzero().flatten() if allowed.any() else torch.arange(vocabulary)
    generator = torch.Generator().manual_seed(seed)
    return choices[torch.randint(len(choices), shape, generator=generator)]


def _vocabulary(config: Any) -> int:
    inner = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(inner, "vocab_size", None)
    if not isinstance(size, int) or size < 1:
        raise Fault(
            f"a {quote(config.model_type)} model has no vocabulary; hf: diagnoses models of tokens",
            name="E-HF-KIND",
            fix="write a function that returns a unitygain.Case, and give file.py:function",
        )
    return size


def _length(config: Any, request: Request) -> int:
    inner = config.get_text_config() if hasattr(config, "get_text_config") else config
    cap = next(
        (n for n in (getattr(inner, name, None) for name in POSITIONS) if isinstance(n, int) and n > 0), None
    )
    if cap is not None and "roberta" in str(config.model_type):  # its positions start after the padding's
        cap -= (getattr(inner, "pad_token_id", None) or 0) + 1
    if request.sequence_length is None:
        return DEFAULT_LENGTH if cap is None else max(1, min(DEFAULT_LENGTH, cap))
    if cap is not None and request.sequence_length > cap:
        raise usage(f"--sequence-length {request.sequence_length} exceeds the model's {cap} positions")
    return request.sequence_length


def _tokenizer(folder: Path) -> tuple[Any, str]:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None, "the folder has no tokenizer"
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False), ""
    except Exception as error:
        return None, f"the folder's tokenizer cannot be read ({type(error).__name__}: {first_line(error)})"
