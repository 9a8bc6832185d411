"""Studies of width and depth: plan, run, statistics, rules and verdicts."""
