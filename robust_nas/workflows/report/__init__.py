"""The report of a run folder: one HTML page that opens offline, from the records that are in the folder."""
