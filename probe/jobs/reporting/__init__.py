"""The report of a run, or of several: tables, sentences and pictures as one page."""
