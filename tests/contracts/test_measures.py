"""What every measure promises: it repeats, declares its unit, names real places, explains infinity."""

import math
from functools import cache

import pytest
import torch
from contracts.small_cases import EVERY, HEALTHY

import unitygain.measures  # noqa: F401 (fills the registry)
from unitygain._diagnose import measure_all
from unitygain._registry import MEASURES
from unitygain._types import Profile
from unitygain.probe.isolate import isolated

PAIRS = [pytest.param(measure, model, id=f"{measure}-{model}") for measure in MEASURES for model in HEALTHY]


@cache
def measured(model: str, draw: int = 0) -> dict[str, Profile]:
    """Measure everything on a fresh instance of `model`; `draw` tells one run from another."""
    torch.manual_seed(7)
    case = EVERY[model]()
    with pytest.MonkeyPatch.context() as patch, isolated(case, 3) as (subject, _):
        patch.setenv("UNITYGAIN_STRICT", "1")
        profiles, _, _ = measure_all(subject, None, 4, 3, lambda done, total, what: None)
    return profiles


@cache
def places(model: str) -> set[str]:
    """Return the dotted names of all modules and parameters of `model`."""
    built = EVERY[model]().model
    return {name for name, _ in built.named_modules()} | {name for name, _ in built.named_parameters()}


def numbers(profile: Profile) -> list[float]:
    """Return every number of a profile that belongs to a site."""
    return [*profile.values, *(profile.error or ()), *(number for row in profile.rows for number in row)]


def test_the_registry_is_not_empty():
    assert len(MEASURES) >= 25


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_measure_applies_to_some_model(measure):
    assert any(measure in measured(model) for model in EVERY), "no case here has what this measure looks for"


@pytest.mark.parametrize(("measure", "model"), PAIRS)
def test_measure_repeats_under_a_seed(measure, model):
    # repr tells NaN from NaN no better than users can, and -0.0 from 0.0.
    assert repr(measured(model).get(measure)) == repr(measured(model, draw=1).get(measure))


@pytest.mark.parametrize(("measure", "model"), PAIRS)
def test_measure_declares_name_and_unit(measure, model):
    profile = measured(model).get(measure)
    if profile is not None:
        assert profile.name == measure
        assert profile.unit == MEASURES[measure].unit
        assert len(profile) > 0, "a measure that does not apply returns None"


@pytest.mark.parametrize(("measure", "model"), PAIRS)
def test_measure_names_places_of_the_model(measure, model):
    profile = measured(model).get(measure)
    if profile is not None:
        assert {site.path for site in profile.sites} <= places(model)
        assert len(set(profile.sites)) == len(profile.sites), "a place is there twice"


@pytest.mark.parametrize(("measure", "model"), PAIRS)
def test_measure_is_finite_or_explained(measure, model):
    profile = measured(model).get(measure)
    if profile is not None and not all(map(math.isfinite, numbers(profile))):
        assert profile.note, "a number that is not finite in a healthy model needs a sentence"


@pytest.mark.parametrize("measure", ["loss_value", "act_frac_nonfinite", "grad_frac_nonfinite"])
def test_a_nan_is_not_hidden(measure):
    values = measured("broken")[measure].values
    assert any(value > 0 or math.isnan(value) for value in values)
