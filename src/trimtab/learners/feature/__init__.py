"""Feature level: what is learned is held on a leash of SAE features."""
