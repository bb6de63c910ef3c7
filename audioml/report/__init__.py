"""The page and the card of a finished run or cross-validation."""

from audioml.report.writing import write_report

__all__ = ["write_report"]
