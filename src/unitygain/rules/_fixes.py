"""Code to paste, for the cause that is likeliest."""

from collections.abc import Collection, Sequence

from unitygain._types import Cause
from unitygain.rules._numbers import spell

WEIGHTS = """for module in model.modules():  # weights with standard deviation gain / sqrt(fan_in)
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std={gain} / module.weight[0].numel() ** 0.5)"""
BY_HAND = """for weight in ({weights}):  # standard deviation gain / sqrt(fan_in)
    nn.init.normal_(weight, std={gain} / weight.shape[0] ** 0.5)  # of x @ weight; shape[1] of weight @ x"""
RECURRENT = """for name, weight in model.get_submodule({path!r}).named_parameters():
    if name.startswith("weight_hh"):
        nn.init.orthogonal_(weight)  # gain 1"""
GATES = """cell = model.get_submodule({path!r})  # the gate that keeps the state starts open
with torch.no_grad():
    for name, offset in cell.named_parameters():
        if name.startswith("bias_ih"):
            offset[cell.hidden_size : 2 * cell.hidden_size] += {bias}"""
DRAWN = "nn.init.kaiming_normal_(model.get_submodule({path!r}).weight)  # and so every weight of zeros"
BRANCHES = "x = x + {factor} * branch(x)  # 1 / sqrt(2 * number of blocks), in every block"
BIASES = "nn.init.zeros_(model.get_submodule({path!r}).bias)"
NORM = "x = x + block(x)  # give each block with a norm a skip path"
SKIP = "x = x + block(x) / n_blocks**0.5  # in every block whose output has the shape of its input"
PRE_NORM = "x = x + branch(norm(x))  # in the place of x = norm(x + branch(x)); a last norm before the head"
ACTIVATION = "nn.{to}()  # in the place of nn.{of}()"
INPUTS = "inputs = (inputs - inputs.mean()) / inputs.std()  # mean and spread of the training data"


def suggest(causes: Sequence[Cause], by_hand: Collection[str] = ()) -> str:
    """Return code that takes the first cause away in the source, empty where it has no remedy.

    Args:
        causes: The likeliest first.
        by_hand: Names of parameters that are multiplied by hand, which no module's code would find.
    """
    first = next(iter(causes), None)
    if first is None or first.remedy is None:
        return ""
    given = first.parameters
    sites = tuple(given.get("sites", ()))
    path = next(iter(sites), "")
    recurrent = str(given.get("only", "")).startswith("weight_hh")
    texts = {
        "rescale_weights": RECURRENT if recurrent else BY_HAND if path in by_hand else WEIGHTS,
        "open_gates": GATES,
        "scale_branch": BRANCHES,
        "zero_biases": BIASES,
        "bypass_norm": NORM,
        "pre_norm": PRE_NORM,
        "add_residual": SKIP,
        "swap_activation": ACTIVATION,
        "unit_inputs": INPUTS,
        "activation_init": DRAWN,
    }
    numbers = {name: spell(value) for name, value in given.items() if isinstance(value, float)}
    words = {name: value for name, value in given.items() if isinstance(value, str)}
    some = ", ".join(f"model.get_parameter({site!r})" for site in sites[:2]) + ", ..." * (len(sites) > 2)
    return texts.get(first.remedy, "").format(**{**words, **numbers, "path": path, "weights": some})
