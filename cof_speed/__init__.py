"""What CoF costs: the published way and ours, step by step, in units of one plain pass."""
