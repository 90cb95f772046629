"""Embeddings and rewards to a linear probe that gives value to completions (Q-Probe)."""
