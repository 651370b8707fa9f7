"""Candidates: by cause, each once, bounded, in the order of how likely and how direct they are."""

import numpy as np
import pytest

import unitygain as ug
from unitygain._candidates import MOST_ARMS, Arm, choose_arms, pairs_of, paste
from unitygain._registry import REMEDIES, Remedy
from unitygain._types import Cause, Finding, Severity, Site


def finding(*causes: Cause, code: str = "UG101", severity: Severity = "error") -> Finding:
    return Finding(code, "x", severity, "m", (Site("a"),), "backward_gain", 0.4, "u", 0.7, causes=causes)


def nothing(case: ug.Case, *, much: float = 1.0):
    return lambda: None


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """A small table of remedies: two removals, and what stands for them."""
    known = {
        "wide": Remedy("wide", ("UG101", "UG202"), nothing, "", "initial weights"),
        "tame": Remedy("tame", ("UG101",), nothing, "", "biases"),
        "usual": Remedy("usual", ("UG101",), nothing, "", "initial weights", ("wide",)),
        "other": Remedy("other", ("UG101",), nothing, "", "architecture", ("wide", "tame")),
        "alien": Remedy("alien", ("UG705",), nothing, "", "loss", ("wide",)),
    }
    for name in list(REMEDIES):
        monkeypatch.delitem(REMEDIES, name)
    for name, entry in known.items():
        monkeypatch.setitem(REMEDIES, name, entry)


WIDE = Cause("weights", "wide", {"much": 2.0}, (0.9, 1.1))
TAME = Cause("biases", "tame")


def names(arms: list[Arm]) -> list[str]:
    return [arm.name for arm in arms]


def test_removals_come_first_then_what_stands_for_them_then_second_causes():
    arms, beyond = choose_arms([finding(WIDE, TAME)])
    assert names(arms) == ["wide", "usual", "other", "tame"]
    assert beyond == []
    assert arms[0].calls == (("wide", {"much": 2.0}),)
    assert arms[0].predicted == (0.9, 1.1)
    # With its defaults, and without the range that the removal must give.
    assert arms[1].calls == (("usual", {}),)
    assert arms[1].predicted is None
    assert arms[2].causes == {"wide", "tame"}


def test_the_first_causes_of_all_findings_come_before_any_second_one():
    arms, _ = choose_arms([finding(WIDE), finding(TAME, WIDE, code="UG202")])
    assert names(arms)[:2] == ["wide", "tame"]
    assert arms[0].codes == ("UG101", "UG202")


def test_refuted_causes_and_notes_are_left_out():
    refuted = Cause("weights", "wide", {}, (0.9, 1.1), "refuted")
    assert names(choose_arms([finding(refuted, TAME)])[0]) == ["tame", "other"]
    assert choose_arms([finding(WIDE, severity="info")]) == ([], [])


def test_a_finding_without_a_removal_gets_what_treats_its_code_and_needs_no_argument():
    arms, _ = choose_arms([finding(Cause("no skip path"))])
    assert names(arms) == ["usual", "other"]
    # Where the only removal was refuted, the cause is not that one.
    refuted = Cause("weights", "wide", {}, (0.9, 1.1), "refuted")
    assert choose_arms([finding(refuted)])[0] == []


def test_what_is_beyond_the_bound_is_named_and_what_was_asked_for_is_not_counted():
    arms, beyond = choose_arms([finding(WIDE, TAME)], also=["alien", ("wide", {"much": 2.0})], most=2)
    assert names(arms) == ["alien", "wide", "usual", "other"]
    assert names(beyond) == ["tame"]
    assert arms[0].findings == ()
    assert arms[1].codes == ("UG101",)
    assert MOST_ARMS >= 8
    with pytest.raises(ValueError, match="no remedy is named 'luck'; the names are alien, other"):
        choose_arms([], also=["luck"])


def test_combinations_are_of_changes_whose_causes_differ():
    arms, _ = choose_arms([finding(WIDE, TAME)])
    assert names(pairs_of(arms)) == ["wide + tame", "usual + tame"]
    (pair, _) = pairs_of(arms)
    assert pair.causes == {"wide", "tame"}
    assert len(pair.findings) == 1
    assert pair.changes == "initial weights, biases"
    assert pairs_of([arms[0], arms[1]]) == []


def test_the_code_runs_and_applies_them_all(monkeypatch):
    seen: list[tuple[str, object]] = []
    for name in ("wide", "tame"):
        monkeypatch.setattr(
            ug.remedies,
            name,
            lambda case, name=name, **given: seen.append((name, given)) or seen,
            raising=False,
        )
        moved = REMEDIES[name].apply
        monkeypatch.setattr(moved, "__module__", "unitygain.remedies.made_up")
    calls = (("wide", {"much": 2.0, "sites": ("a", "it's")}), ("tame", {"bound": float("inf")}))
    scope: dict[str, object] = {"case": None}
    exec(paste(calls), scope)
    assert seen == [("wide", calls[0][1]), ("tame", calls[1][1])]
    assert len(scope["undos"]) == 2  # type: ignore[arg-type]
    exec(paste(calls[:1]), scope)
    assert scope["undo"] is seen
    assert paste(()) == ""


def test_an_argument_that_no_code_spells_is_a_variable_of_its_name():
    code = paste([("wide", {"weights": np.zeros(9), "sites": lambda path: True, "much": float("nan")})])
    assert 'wide(case, weights=weights, sites=sites, much=float("nan"))' in code
    assert "# weights is the ndarray that the trial was given.\n# sites is the function that" in code
    compile(code, "pasted", "exec")


def test_a_remedy_of_ones_own_is_imported_from_its_home():
    assert f"from {__name__} import wide" in paste([("wide", {})])


def test_a_pair_has_no_prediction_of_its_own():
    one = Arm(
        (("rescale_weights", {"gain": 1.0}),), causes=frozenset({"rescale_weights"}), predicted=(0.9, 1.1)
    )
    other = Arm((("zero_biases", {}),), causes=frozenset({"zero_biases"}), predicted=(0.5, 0.6))
    (pair,) = pairs_of([one, other])
    assert pair.calls == one.calls + other.calls
    assert pair.predicted is None
