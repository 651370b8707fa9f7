"""``hf:DIR``: a Case from a folder with a Hugging Face config, and safetensors where there are any.

Only the folder is read: nothing is fetched, no code of the folder runs, and a pickle is refused.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unitygain.cli import _safetensors
from unitygain.cli._faults import Fault, first_line, nearest, plain, quote, usage
from unitygain.cli._request import Request
from unitygain.cli._target import PICKLES

if TYPE_CHECKING:
    from unitygain._case import Case

LARGEST_JSON = 64 * 2**20
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHER_WEIGHTS = (*PICKLES, ".h5", ".msgpack")
OTHER_NAMES = ("pytorch_model", "tf_model", "flax_model", "model")


class Head(NamedTuple):
    """A kind of language model, and where transformers lists its classes."""

    words: str
    listing: str
    auto: str


HEADS = (
    Head("causal language model", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM"),
    Head("masked language model", "MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModelForMaskedLM"),
    Head(
        "sequence-to-sequence model", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM"
    ),
    Head(
        "sequence classifier",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        "AutoModelForSequenceClassification",
    ),
)
CAUSAL, MASKED, SEQUENCE, CLASSIFIER = HEADS


def look(given: str) -> Path:
    """Return the folder after all that can be checked without torch was checked.

    Raises:
        Fault: If the folder or its config is missing or damaged, the weights are a pickle, or a
            safetensors file is not what its header says.
    """
    folder = Path(os.path.expanduser(given))
    if not given:
        raise usage("hf: names no folder", fix="unitygain diagnose hf:path/to/model")
    if folder.is_file():
        if folder.suffix in OTHER_WEIGHTS:
            raise _refused(folder)
        raise Fault(f"{quote(given)} is a file", name="E-HF-FOLDER", fix=f"use hf:{plain(folder.parent)}")
    if not folder.is_dir():
        names = (
            [entry.name for entry in folder.parent.iterdir() if entry.is_dir()]
            if folder.parent.is_dir()
            else []
        )
        guess = nearest(folder.name, names)
        hint = f"; did you mean {quote(folder.with_name(guess))}?" if guess else ""
        raise Fault(
            f"no folder {quote(given)}{hint}",
            name="E-HF-FOLDER",
            why="" if hint else "hf: takes a local folder; nothing is downloaded",
        )
    config = _json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise Fault(f"config.json in {quote(given)} has no model_type", name="E-HF-CONFIG")
    for file in _weights(folder):
        _safetensors.check(file)
    return folder


def load(folder: Path, request: Request) -> tuple["Case", dict[str, str]]:
    """Return the Case and what was chosen for it: head, weights, input.

    Raises:
        Fault: If transformers is missing or cannot read the folder, or the model is not one of tokens.

    Side effects:
        Imports transformers and sets it offline and quiet for this process.
    """
    transformers = _transformers()
    config = _reading(
        lambda: transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    )
    head, fresh = _choose(config)
    from unitygain._case import Case
    from unitygain.cli import _tokens

    ids, mask_id, said = _tokens.draw(folder, config, request)
    batches, labels = _batches(head, ids, mask_id, config, request.seed)
    auto = getattr(transformers, head.auto)
    facts = {"head": f"{head.words}{fresh}", **said, "labels": labels}
    if _weights(folder):
        model, facts["weights"] = _read_weights(auto, folder, request.seed)
    else:
        model = _factory(auto, config)
        facts["weights"] = f"random, seed {request.seed}: the folder has a config alone"
    loss = _loss(head)
    return Case(
        model, loss, batches, name=folder.resolve().name, seed=request.seed, batches=len(batches)
    ), facts


def _weights(folder: Path) -> list[Path]:
    """The safetensors files to load, none where the folder has a config alone."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        listed = _json(folder / INDEX).get("weight_map")
        names = set(listed.values()) if isinstance(listed, dict) else set()
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise Fault(f"{INDEX} names no files of its folder; refused", name="E-CHECKPOINT")
        files = [folder / name for name in sorted(names)]
        for file in files:
            if not file.is_file() or file.suffix != ".safetensors":
                raise Fault(f"{INDEX} names {quote(file.name)}, which is not there", name="E-CHECKPOINT")
        return files
    for file in sorted(folder.iterdir()):
        if file.suffix in OTHER_WEIGHTS and file.name.split(".")[0].split("-")[0] in OTHER_NAMES:
            raise _refused(file)
    return []


def _refused(file: Path) -> Fault:
    pickled = file.suffix in PICKLES
    kind = "a pickle, which runs code when it is read" if pickled else "not safetensors"
    return Fault(
        f"{quote(file.name)} is {kind}; refused",
        name="E-PICKLE" if pickled else "E-CHECKPOINT",
        why="only safetensors are read",
        fix="convert it where you trust it: model.save_pretrained(folder, safe_serialization=True)",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise Fault(f"{quote(path.name)} is larger than 64 MiB", name="E-HF-CONFIG")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Fault(
            f"no {path.name} in {quote(path.parent)}",
            name="E-HF-CONFIG",
            fix="give the folder that save_pretrained wrote",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise Fault(f"{quote(path)} is not JSON: {first_line(error)}", name="E-HF-CONFIG") from None
    if not isinstance(found, dict):
        raise Fault(f"{quote(path)} is not a JSON object", name="E-HF-CONFIG")
    return found


def _transformers() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import transformers
    except ImportError as error:
        raise Fault(
            "hf:DIR needs transformers, which is not installed",
            name="E-HF-MISSING",
            why="" if isinstance(error, ModuleNotFoundError) else first_line(error),
            fix="pip install 'unitygain[hf]'",
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _reading(action: Callable[[], Any]) -> Any:
    """Run what reads the folder: whatever transformers raises there is about the folder."""
    try:
        return action()
    except Exception as error:
        raise Fault(
            f"transformers cannot read the folder: {type(error).__name__}: {first_line(error)}",
            name="E-HF-CONFIG",
        ) from error


def _choose(config: Any) -> tuple[Head, str]:
    """The head that the architecture names, else one that this type of model can have, and a word on it."""
    from transformers.models.auto import modeling_auto

    listings = {head: getattr(modeling_auto, head.listing) for head in HEADS}
    named = next(iter(getattr(config, "architectures", None) or ()), None)
    for head, listing in listings.items():
        if named in _names(listing.get(config.model_type)):
            return head, f" ({plain(named)})"
    first = [SEQUENCE] if getattr(config, "is_encoder_decoder", False) else []
    first += [CAUSAL, MASKED] if getattr(config, "is_decoder", False) else [MASKED, CAUSAL]
    for head in first:
        if config.model_type in listings[head]:
            reason = f"config.json names {plain(named)}" if named else "config.json names no architecture"
            return head, f" with a head that was chosen here ({reason})"
    raise Fault(
        f"{quote(named or config.model_type)} is no language model that hf: knows",
        name="E-HF-KIND",
        why=f"it knows {', '.join(head.words for head in HEADS)}",
        fix="write a function that returns a unitygain.Case, and give file.py:function",
    )


def _names(listed: Any) -> tuple[str, ...]:
    return (listed,) if isinstance(listed, str) else tuple(listed or ())


def _factory(auto: Any, config: Any) -> Callable[[], Any]:
    def build() -> Any:
        return _reading(lambda: auto.from_config(config, trust_remote_code=False)).train()

    return build


def _read_weights(auto: Any, folder: Path, seed: int) -> tuple[Any, str]:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, found = _reading(
            lambda: auto.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        )
    missing = len(found.get("missing_keys") or ())
    fresh = f"; {missing} parameters are not in it and were drawn with seed {seed}" if missing else ""
    return model.train(), f"from the folder's safetensors{fresh}"


def _batches(
    head: Head, ids: Any, mask_id: int | None, config: Any, seed: int
) -> tuple[list[dict[str, Any]], str]:
    """Batches as the model takes them, with labels, and a word on the labels."""
    import torch

    from unitygain.cli import _tokens

    labels, said = ids, "the next token of each"
    if head is MASKED:
        ids, labels, said = _tokens.mask(ids, mask_id, config, seed)
    elif head is SEQUENCE:
        said = "the input again"
    elif head is CLASSIFIER:
        labels, said = _classes(config, ids.shape[:2], seed)
    batches = [
        {"input_ids": x, "attention_mask": torch.ones_like(x), "labels": y}
        for x, y in zip(ids, labels, strict=True)
    ]
    return batches, said


def _classes(config: Any, shape: tuple[int, ...], seed: int) -> tuple[Any, str]:
    """Labels for a classifier, drawn, in the form that its kind of problem takes."""
    import torch

    generator = torch.Generator().manual_seed(seed + 1)
    classes = int(getattr(config, "num_labels", 2))
    if classes == 1:
        return torch.randn(shape, generator=generator), "drawn numbers"
    if getattr(config, "problem_type", None) == "multi_label_classification":
        return torch.randint(
            2, (*shape, classes), generator=generator
        ).float(), f"{classes} drawn zeros and ones"
    return torch.randint(classes, shape, generator=generator), f"drawn from {classes} classes"


def _loss(head: Head) -> Callable[[Any, Any], Any]:
    extra = {} if head in {MASKED, CLASSIFIER} else {"use_cache": False}

    def loss(model: Any, batch: Any) -> Any:
        return model(**batch, **extra).loss

    return loss
