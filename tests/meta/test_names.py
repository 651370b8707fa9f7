"""The public names are a promise, and a file is named for what it holds."""

import codecs
import re

import pytest
from meta.tree import modules, name, project_files

import unitygain

PUBLIC = [
    "Case",
    "Finding",
    "Guard",
    "Probe",
    "Profile",
    "Record",
    "Report",
    "Trial",
    "clip",
    "detector",
    "detectors",
    "diagnose",
    "guard",
    "measure",
    "measures",
    "remedies",
    "remedy",
    "rule",
    "rules",
    "theory",
    "treat",
]
HOMELESS = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "core",
    "manager",
    "engine",
    "handler",
    "misc",
}

# Words of the workshop that say nothing to a reader, spelt in rot13 so that this file passes too.
WORKSHOP = codecs.decode(
    "frffvba frffvbaf fhontrag fhontragf ntrag ntragf pynhqr naguebcvp prb sbhaqre sbhaqref jbexcynpr",
    "rot13",
).split()
PLACES = codecs.decode(
    "/jbex/ /gzc/ /ebbg/ /bcg/ funerq/ersrerapr clcv.bet clgubaubfgrq qbjaybnq.clgbepu", "rot13"
).split()
NUMBERED = rf"\b{codecs.decode('vffhr', 'rot13')} #?\d"
# Python and pytest's own names for the same letters.
ALLOWED = re.compile(r'scope="\w+"|pytest_\w+start|pytest_\w+finish|pytest\.[A-Z]\w+')


def test_public_names_are_the_promised_ones():
    assert sorted(unitygain.__all__) == PUBLIC


@pytest.mark.parametrize("public", PUBLIC)
def test_public_name_is_there(public):
    assert getattr(unitygain, public) is not None
    assert public in dir(unitygain)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"unitygain.*Diagnosis"):
        _ = unitygain.Diagnosis  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("file", modules(), ids=name)
def test_file_is_named_for_what_it_holds(file):
    words = {word for part in file.with_suffix("").parts[-2:] for word in part.strip("_").split("_")}
    assert not words & HOMELESS, "a thing without a better name has no home yet"


def test_no_file_speaks_of_the_workshop():
    places = map(re.escape, PLACES)
    pattern = re.compile(rf"\b(?:{'|'.join(WORKSHOP)})\b|{'|'.join(places)}|{NUMBERED}", re.IGNORECASE)
    found = []
    for file in project_files():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name(file)}:{number}: {hit.group()}"
            for number, line in enumerate(lines, 1)
            if (hit := pattern.search(ALLOWED.sub("", line)))
        ]
    assert not found, "\n".join(found)
