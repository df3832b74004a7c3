"""The report of a study: one page, its figures and tables as files, the main table for a paper."""

from .writing import write_report

__all__ = ["write_report"]
