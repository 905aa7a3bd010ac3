"""What came out of a trial."""
