"""How far a reward can be trusted: checks, RewardBench, win rates, and a report of what it prefers."""
