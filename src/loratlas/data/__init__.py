"""Data: from the rows that a study names to token rows in splits."""
