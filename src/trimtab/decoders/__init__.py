"""Spend a learned object: choose tokens, completions or models."""
