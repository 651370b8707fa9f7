"""padding_read: how much of what is read of padded sequences is their padding."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.padding import find_readings
from unitygain.probe.record import Record

UNIT = "padding's part of what is read, per token"


@measure(unit=UNIT, passes="1 forward and 1 backward, where an embedding is given padded sequences")
def padding_read(case: Case, record: Record) -> Profile | None:
    """What attention reads at padding over what it reads at padding and at words, and the same of the loss.

    It is 0 where a mask hides the padding, 0.5 where nothing tells padding from words, and 1 where what is
    read is padding alone. An attention's is taken of the mean weight of a token, over all queries and heads;
    an embedding's of the share of tokens that get any gradient of the loss. Padding is the ``padding_idx`` of
    an `nn.Embedding`, or, where it has none, the tail of the token that ends most sequences.

    Cost: one forward pass and a backward pass to the embeddings. No side effects.

    Args:
        case: An isolated case.
        record: Its record, which names the seed and the batch.

    Returns:
        One value per attention over a padded sequence, and one per embedding of it. Labels: ``attention`` or
        ``embedding``. Columns: ``at_padding`` and ``at_words``, the weights or shares. None where no
        sequence is padded.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> text = torch.tensor([[3, 4, 0, 0], [5, 0, 0, 0]])
        >>> model = nn.Embedding(6, 4, padding_idx=0)
        >>> case = Case(model, loss=lambda m, x: m(x)[x != 0].square().mean(), data=[text])
        >>> profile = padding_read(case, observe(case, []))
        >>> profile.values, profile.rows
        ((0.0,), ((0.0, 1.0),))
    """
    found = find_readings(case, record)
    if not found:
        return None
    return Profile(
        "padding_read",
        UNIT,
        tuple(one.site for one in found),
        tuple(one.share for one in found),
        labels=tuple(one.kind for one in found),
        columns=("at_padding", "at_words"),
        rows=tuple((one.at_padding, one.at_words) for one in found),
    )
