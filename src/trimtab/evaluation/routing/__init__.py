"""What a router bought: measures with intervals, and ranking by reward models."""
