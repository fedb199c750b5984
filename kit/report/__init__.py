"""Artefacts, results, verdicts, figures and the page."""
