"""Objectives side by side: fair, repeated, in one report."""
