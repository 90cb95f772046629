"""PROMPTS: sources, chat templates, pairs, splits."""
