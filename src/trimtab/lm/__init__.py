"""Named models: where their weights come from, and the only place that loads them."""
