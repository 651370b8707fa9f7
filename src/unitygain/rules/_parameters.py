"""What rules read off the names of parameters: which are biases, which are alike, which stand together."""

import re
from collections.abc import Iterable, Sequence

from unitygain._types import Site

SHOWN = 4


def is_bias(site: Site) -> bool:
    """Whether the parameter is an offset by its name: ``bias``, ``in_proj_bias``, ``bias_hh_l0``."""
    return "bias" in site.path.rpartition(".")[2]


def pattern(site: Site) -> str:
    """Return the name with its numbers replaced, the same for parameters of modules that repeat."""
    return re.sub(r"\d+", "*", site.path)


def numbers(site: Site) -> tuple[int, ...]:
    """Return the numbers in the name, in order."""
    return tuple(int(digits) for digits in re.findall(r"\d+", site.path))


def owner(site: Site) -> str:
    """Return the path of the module that holds the parameter, be it one of a parametrised weight."""
    module, parametrised, _ = site.path.partition(".parametrizations.")
    return module if parametrised else module.rpartition(".")[0]


def list_names(sites: Sequence[Site] | Iterable[str]) -> str:
    """Write a few names, and how many more there are.

    Example:
        >>> list_names(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d and 2 more'
    """
    names = [str(site) for site in sites]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def list_owners(sites: Iterable[Site]) -> str:
    """Write the modules that hold the parameters, each once, in order."""
    return list_names(dict.fromkeys(owner(site) or str(site) for site in sites))
