"""The report of a run: a page, words, tables and figures in one folder."""
