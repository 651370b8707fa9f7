"""unitygain measures how each part of a model amplifies signal and gradient, and where that goes wrong."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitygain import clip as clip
    from unitygain import detectors as detectors
    from unitygain import guard as guard
    from unitygain import measures as measures
    from unitygain import remedies as remedies
    from unitygain import rules as rules
    from unitygain import theory as theory
    from unitygain._case import Case as Case
    from unitygain._diagnose import diagnose as diagnose
    from unitygain._registry import detector as detector
    from unitygain._registry import measure as measure
    from unitygain._registry import remedy as remedy
    from unitygain._registry import rule as rule
    from unitygain._treat import treat as treat
    from unitygain._trial import Trial as Trial
    from unitygain._types import Finding as Finding
    from unitygain._types import Profile as Profile
    from unitygain.guard import Guard as Guard
    from unitygain.probe import Probe as Probe
    from unitygain.probe import Record as Record
    from unitygain.report import Report as Report

# Where each public name lives. A name is imported when it is first used: `import unitygain` brings no torch.
_HOMES = {
    "Case": "unitygain._case",
    "Finding": "unitygain._types",
    "Guard": "unitygain.guard",
    "Probe": "unitygain.probe",
    "Profile": "unitygain._types",
    "Record": "unitygain.probe",
    "Report": "unitygain.report",
    "Trial": "unitygain._trial",
    "diagnose": "unitygain._diagnose",
    "detector": "unitygain._registry",
    "measure": "unitygain._registry",
    "remedy": "unitygain._registry",
    "rule": "unitygain._registry",
    "treat": "unitygain._treat",
}
_ROOMS = ("clip", "detectors", "guard", "measures", "remedies", "rules", "theory")

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = import_module(f"unitygain.{name}")
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module 'unitygain' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("unitygain")
    except PackageNotFoundError:
        return "unknown (not installed)"
