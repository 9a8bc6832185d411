"""The jobs, one file per verb that does one: search, training, evaluation (a run folder each) and export."""
