"""Report → text | json | html: draws what Profiles and Findings hold, and computes nothing."""

from unitygain.report._report import Report
from unitygain.report._show import show, show_text
from unitygain.report._text import render_text

__all__ = ["Report", "render_text", "show", "show_text"]
