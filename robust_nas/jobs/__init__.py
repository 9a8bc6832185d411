"""The jobs, one file per verb that does one: each takes a config and writes one run folder."""
