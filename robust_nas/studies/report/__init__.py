"""From finished trials to conclusions: the analysis, its figures, the report and the table."""
