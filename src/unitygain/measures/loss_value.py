"""loss_value: the loss, beside what a prediction that knows nothing would cost."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._loss import main_loss
from unitygain.probe import ranges, reach, simplex
from unitygain.probe.record import Record

UNIT = "the loss, in its own unit"


@measure(
    unit=UNIT,
    needs=(
        *("loss.expected", "loss.classes", "loss.rows", "loss.softmax_before", "loss.mean"),
        *("loss.target_rms", *(f"reach.{name}" for name in reach.STATISTICS)),
        *(f"logit_range.{name}" for name in ranges.STATISTICS),
        *(f"simplex.{name}" for name in simplex.STATISTICS),
        *("logits.rms", "logits_grad.rms", "logits_grad.mean"),
    ),
)
def loss_value(case: Case, record: Record) -> Profile | None:
    """Loss of the batch, with the value that a prediction without any knowledge would have.

    The expected value is ln(classes) for a cross-entropy (all classes alike), ln 2 for a binary one, and
    the variance of the targets for a squared error (their mean). It is taken from the loss operation with
    most rows; further terms, weights and scales of the loss are not seen, and a loss that is written by
    hand in another way has the kind ``unknown``.

    Cost: none but watching the operations. No side effects.

    Args:
        case: Not used.
        record: A record with `loss.expected`, `loss.classes`, `loss.rows`, `loss.softmax_before`,
            `loss.mean`, `loss.target_rms`, `logits.rms`, `logits_grad.rms`, `logits_grad.mean`,
            and all that is told of `reach`, `logit_range` and `simplex`.

    Returns:
        One value at the model. Facts: ``kind``; ``expected`` and ``classes`` (NaN where unknown);
        ``row_mean``, the loss operation's own mean over its rows, without class weights, label smoothing,
        reduction by a sum or further terms (NaN where unknown); ``target_rms``, of the targets of a squared
        error (NaN for others, and where both sides are learnt); ``logits_by``, what bounds
        the logits that enter a cross-entropy: ``cosines`` (products of vectors of fixed length), ``tanh`` or
        ``sigmoid``, empty where nothing does, and ``logits_least``, ``logits_most`` and ``logits_classes``,
        what they can reach and of how many classes (1 for a binary loss; NaN where nothing bounds them);
        ``reduction``, the loss over that mean: 1 for a mean, the number of rows for a sum, and what else the
        loss is multiplied by. Of squares that are written out it is taken from the gradient g of the model's
        output of n entries, as n²·mean(g²)/(4·loss), which is right for errors of any size; terms that do
        not depend on that output make it smaller; NaN for others;
        ``softmax_before_loss``, 1 where a loss with its own softmax (sigmoid) is given what has been
        through one; ``loss_operations``, how many were seen; ``smallest_product``, the largest entry of
        the smallest `torch.prod` behind the model's output (NaN without); ``output_rms``, of the model's
        output, and ``output_pull``, from -1 to 1: the mean of the gradient there over its rms, above 0 where
        the loss asks for less (NaN where there is no gradient); ``beyond``, the mean square by which
        targets of a difference lie beyond what the activation behind the prediction can put out, over their
        variance (NaN where none bounds it), and ``bounded_by``, that activation; ``pairs``, N where a
        difference of N predictions and N targets is broadcast to N x N (NaN where none is), and
        ``prediction``, which of the two dimensions the predictions take: ``column`` for (N, 1) beside targets
        of shape (N,), ``row`` for the other way round; ``silent``, of the logits of a cross-entropy that come
        out of a ReLU and belong to the right classes, the share that are exactly 0 and get no gradient (NaN
        where none do), and ``silent_by``, that activation; ``denied``, the share of a binary
        cross-entropy's targets that are below a half, where an activation keeps all logits above 0 (NaN where
        none does), and ``denied_by``, that activation; ``log_sum``, the ln(sum) of
        the probabilities of a row that is farthest from 0 where the loss takes log-probabilities (NaN where
        none does), ``summed_by``, that loss, and ``classes_along`` and ``ones_along``, the dimension of the
        classes and another one along which the sums are 1 (NaN where none is); ``single``, 1 where a softmax
        over one entry, which is always 1, goes into the loss; ``target_least`` and ``target_most``,
        of the targets of a binary cross-entropy (NaN without); ``flat_activation``, the
        piecewise linear activation whose slope, a constant, the loss differentiates (empty without), and
        ``flat_products``, how many products with the zeros of that derivative there are; ``step_function``,
        a function whose slope is zero (sign, round, floor) on the way to the loss (empty without);
        ``cut_share``, the size of the terms of the loss that were computed from the parameters and have lost
        their gradient, over the sum of all terms' sizes (0 without; constants are no terms), and ``cut_by``:
        ``derivative`` of `torch.autograd.grad` without a graph, or ``value``, detached (empty without).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> loss = lambda m, x: nn.functional.cross_entropy(m(x), torch.tensor([0, 1]))
        >>> case = Case(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), loss=loss, data=[torch.ones(2, 4)])
        >>> facts = loss_value(case, observe(case, MEASURES["loss_value"].needs)).facts
        >>> facts["kind"], facts["softmax_before_loss"], round(facts["expected"], 4)
        ('cross_entropy', 1.0, 1.0986)
    """
    if "loss" not in record.facts:
        return None
    facts: dict[str, float | str] = {"kind": "unknown", "expected": math.nan, "classes": math.nan}
    facts |= {"row_mean": math.nan, "target_rms": math.nan}
    facts |= {"softmax_before_loss": 0.0, "loss_operations": 0.0}
    main = main_loss(record)
    if main is not None:
        facts["kind"] = record.labels("loss")[main]
        facts["expected"] = record.values["loss.expected"][main][0]
        facts["classes"] = record.values["loss.classes"][main][0]
        facts["row_mean"] = record.values["loss.mean"][main][0]
        facts["target_rms"] = record.values.get("loss.target_rms", {}).get(main, (math.nan,))[0]
        before = record.values["loss.softmax_before"]
        facts["softmax_before_loss"] = float(any(numbers[0] for numbers in before.values()))
        facts["loss_operations"] = float(len(before))
    value = float(record.facts["loss"])
    facts["reduction"] = _reduction(value, facts, record)
    facts["smallest_product"] = float(record.facts.get("smallest_product", math.nan))
    facts["flat_activation"] = record.facts.get("flat_activation", "")
    facts["step_function"] = record.facts.get("step_function", "")
    facts["flat_products"] = float(record.facts.get("flat_products", 0.0))
    facts["cut_share"] = float(record.facts.get("cut_share", 0.0))
    facts["cut_by"] = record.facts.get("cut_by", "")
    facts |= _at_output(record) | _reach(record) | _sums(record) | _range(record)
    note = "" if math.isfinite(value) else "the loss itself is not finite"
    return Profile("loss_value", UNIT, (Site(""),), (value,), facts=facts, note=note)


def _reduction(value: float, facts: dict[str, float | str], record: Record) -> float:
    """Return the loss over the mean of its rows; NaN where neither operation nor output tells."""
    mean = float(facts["row_mean"])
    if mean > 0 and math.isfinite(mean):
        return value / mean
    place = next(iter(record.of("logits")), None)
    gradient = record.numbers("logits_grad.rms", place.site) if place is not None else None
    squares = facts["kind"] == "unknown" and record.facts.get("loss_of_squares") == 1.0
    if place is None or gradient is None or not (squares and value > 0 and math.isfinite(value)):
        return math.nan
    return (math.prod(place.shape) * gradient[0]) ** 2 / (4 * value)


def _at_output(record: Record) -> dict[str, float | str]:
    """Return the size of the model's output, and whether its gradient has one sign."""
    place = next(iter(record.of("logits")), None)
    known = [
        record.numbers(signal, place.site) if place else None
        for signal in ("logits.rms", "logits_grad.mean", "logits_grad.rms")
    ]
    size, mean, rms = (numbers[0] if numbers else math.nan for numbers in known)
    return {"output_rms": size, "output_pull": mean / rms if rms > 0 else math.nan}


def _reach(record: Record) -> dict[str, float | str]:
    """Return what lies beyond the activation behind the prediction, and what makes pairs."""
    beyond, bounded_by = _largest("reach.beyond", record)
    pairs, prediction = _largest("reach.pairs", record)
    silent, silent_by = _largest("reach.silent", record)
    denied, denied_by = _largest("reach.denied", record)
    facts: dict[str, float | str] = {"beyond": beyond, "bounded_by": bounded_by, "pairs": pairs}
    facts |= {"prediction": prediction, "silent": silent, "silent_by": silent_by}
    return facts | {"denied": denied, "denied_by": denied_by}


def _sums(record: Record) -> dict[str, float | str]:
    """Return what the log-probabilities that a loss is given add up to, and along which dimension to one."""
    sums = record.values.get("simplex.log_sum", {})
    worst = max(sums, key=lambda site: abs(sums[site][0]), default=None)
    facts: dict[str, float | str] = {
        name: math.nan if worst is None else record.values[f"simplex.{name}"][worst][0]
        for name in simplex.SUMS
    }
    for name, worse in zip(simplex.TARGETS, (min, max), strict=True):
        ends = record.values.get(f"simplex.{name}", {}).values()
        facts[name] = worse((numbers[0] for numbers in ends), default=math.nan)
    facts["single"] = float(bool(record.values.get("simplex.single")))
    return facts | {"summed_by": "" if worst is None else record.labels("simplex")[worst]}


def _range(record: Record) -> dict[str, float | str]:
    """Return what the logits of the loss can reach, and what bounds them; the narrowest of several."""
    least, most = (record.values.get(f"logit_range.{name}", {}) for name in ("least", "most"))
    narrowest = min(least, key=lambda site: most[site][0] - least[site][0], default=None)
    facts: dict[str, float | str] = {
        f"logits_{name}": math.nan
        if narrowest is None
        else record.values[f"logit_range.{name}"][narrowest][0]
        for name in ranges.STATISTICS
    }
    return facts | {"logits_by": "" if narrowest is None else record.labels("logit_range")[narrowest]}


def _largest(key: str, record: Record) -> tuple[float, str]:
    """Return the largest number of a statistic and its label; NaN and empty without any."""
    numbers = record.values.get(key, {})
    most = max(numbers, key=lambda site: numbers[site][0], default=None)
    return (math.nan, "") if most is None else (numbers[most][0], record.labels("reach")[most])
