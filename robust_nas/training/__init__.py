"""Training: one loop for every loss, schedules, weight averaging, and when to give up."""
