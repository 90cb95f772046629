"""Cues, probes and log-probs to a reranker that orders the completions of one group."""
