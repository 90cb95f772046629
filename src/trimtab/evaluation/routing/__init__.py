"""What a router bought: measures with intervals, ranking by reward models, and pools to measure on."""
