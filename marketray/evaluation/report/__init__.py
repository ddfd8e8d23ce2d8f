"""The report of a selection as one HTML page."""

from marketray.evaluation.report.curves import Series
from marketray.evaluation.report.page import render_report, write_report

__all__ = ["Series", "render_report", "write_report"]
