"""What makes a number that is not finite, by the operation that made it."""

# Their result is infinite where it is too large.
BY_RANGE = (
    "_to_copy",
    "add",
    "sub",
    "exp",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "convolution",
    "mul",
    "pow",
    "square",
    "cosh",
    "sinh",
    "sum",
)
# Which operation makes them of which numbers, forward and backward.
CAUSES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("log", "log2", "log10", "xlogy"),
        "log: its argument is 0 (infinity) or negative (NaN); add eps, or use log_softmax or logsigmoid",
        "log: its slope 1/x at an argument of 0; add eps under the log, or use log_softmax or logsigmoid",
    ),
    (
        ("div", "reciprocal", "true_divide", "rsub", "remainder"),
        "division: the divisor is 0 (0/0 is NaN); bound it from below, or add eps",
        "division: the divisor is 0 or its square underflows; bound it from below, or add eps",
    ),
    (
        ("sqrt", "rsqrt", "norm", "linalg_vector_norm", "_cdist_forward", "cdist", "std", "var"),
        "root: of a negative number (NaN), or one over the root of 0 (infinity); add eps under the root",
        "root: its slope is infinite at 0, as that of a norm, or of the distance of equal points; add eps",
    ),
    (
        ("pow",),
        "power: a negative base with a broken exponent, or 0 with a negative one",
        "power: its slope at 0 is infinite for an exponent below 1",
    ),
    (
        ("exp", "cosh", "sinh", "expm1"),
        "exp: its exponent is above 88 in float32 (11 in float16); bound the exponent, a log-scale or a "
        "log-variance say, by tanh or a smaller last layer, or subtract the maximum (logsumexp)",
        "exp: the gradient is multiplied by a value that is all but infinite; bound the argument",
    ),
    (
        ("softmax", "_softmax", "_log_softmax"),
        "softmax: every entry of a row is minus infinity: a mask that leaves nothing",
        "softmax: every entry of a row is minus infinity: a mask that leaves nothing",
    ),
    (
        ("logit",),
        "logit: its argument is 0 or 1 (infinity), or beyond (NaN); give it an eps, or clamp the argument",
        "logit: its slope is infinite at an argument of 0 or 1; give it an eps, or clamp the argument",
    ),
    (
        ("acos", "asin", "atanh", "acosh", "erfinv", "lgamma", "digamma"),
        "domain: the argument lies outside the function's domain, or on its edge; clamp it inside",
        "domain: the slope is infinite on the edge of the function's domain; clamp the argument inside",
    ),
)
