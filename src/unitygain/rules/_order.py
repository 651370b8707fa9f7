"""In which order findings are read: what is upstream of another comes first."""

from collections.abc import Collection

from unitygain._types import SEVERITIES, Finding

# Numbers that are not finite spoil all others. What the program itself says (which parameters are held, what
# the inputs are, a softmax too many or what else does not fit the loss, what dropout is told, samples that
# meet, a mask that shows the wrong tokens, weights that are alike) is no consequence of anything measured.
FIRST = ("UG901", "UG604", "UG606", "UG614", "UG612", "UG607", "UG106", "UG707", "UG708", "UG207", "UG703")
# That a block is not what its weights claim is no reason: it stands behind every finding that gives one.
LAST = ("UG605", "UG105", "UG611", "UG601", "UG602")
# Logits that are too large, and a gradient that is, follow from a signal or a gradient that grows.
GROWTH = frozenset({"UG102", "UG104", "UG201"})
# Where a signal that falls leaves the biases alone, the inputs become the same. A note says that the fall may
# be chance.
DECAY = ("UG101", "UG202")


def in_order(findings: Collection[Finding]) -> tuple[Finding, ...]:
    """Return the findings by severity, then causes before their consequences, then by code.

    A loss that starts too high, and a step that is too large in proportion to the gradient, come after a
    signal or a gradient that grows: where that is less severe in itself it moves up to them, so that no
    error is read after a lesser finding that has nothing to do with it. In a flow such growth is its
    stretch, which moves up to the growth alike. So does dropout, whose noise makes logits loud. Inputs that
    become the same because the signal falls below the biases come after a warning of that fall in the same
    way.

    Example:
        >>> from unitygain._types import Site
        >>> def found(code, severity="error"):
        ...     return Finding(code, "", severity, "", (Site(""),), "", 0.0, "", 0.0)
        >>> def codes(*findings):
        ...     return [finding.code for finding in in_order(findings)]
        >>> codes(found("UG205"), found("UG607", "warning"), found("UG605"), found("UG901"))
        ['UG901', 'UG205', 'UG605', 'UG607']
        >>> codes(found("UG605"), found("UG201", "warning"), found("UG607", "warning"))
        ['UG201', 'UG605', 'UG607']
        >>> codes(found("UG605"), found("UG612", "warning"))
        ['UG612', 'UG605']
        >>> codes(found("UG203", "warning"), found("UG614", "warning"))
        ['UG614', 'UG203']
    """
    alike = min((_severity(finding) for finding in findings if _left_to_biases(finding)), default=0)
    consequences = [_severity(finding) for finding in findings if _follows(finding)]
    growth = [finding for finding in findings if finding.code in GROWTH]
    most = min(map(_severity, growth), default=0)

    def key(finding: Finding) -> tuple[int, int, str, int]:
        code, severe = finding.code, _severity(finding)
        if code == "UG612":
            severe = min([severe, *consequences])
        if code == "UG703" and growth:
            ahead = min(map(key, growth))
            if ahead[0] < severe:
                return *ahead[:3], 0
        if code in GROWTH and severe == most and min(consequences, default=severe) < severe:
            return min(consequences), 1, code, 1
        if code in DECAY and finding.severity == "warning" and alike < severe:
            return alike, 0, "UG205", DECAY.index(code) - len(DECAY)
        place = FIRST.index(code) - len(FIRST) if code in FIRST else 0
        if finding.fact in {"pairs", "cut_share", "log_sum", "single"}:
            # Shapes, axes, and terms without a gradient, too are what the program itself says.
            place = -len(FIRST)
        return severe, 2 + LAST.index(code) if code in LAST else place, code, 1

    return tuple(sorted(findings, key=key))


def _severity(finding: Finding) -> int:
    return -SEVERITIES.index(finding.severity)


def _follows(finding: Finding) -> bool:
    """Whether a finding is what a growing signal or gradient makes of the loss or of a step."""
    by_sign = finding.evidence.get("step") == "has one size in every entry"
    if finding.fact == "broken":
        return False
    return finding.code == "UG605" or (finding.code == "UG601" and not by_sign)


def _left_to_biases(finding: Finding) -> bool:
    """Whether inputs become the same where the weights let the signal fall below the biases."""
    return finding.code == "UG205" and bool(finding.causes) and finding.causes[0].remedy == "zero_biases"
