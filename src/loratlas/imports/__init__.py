"""Results and adapters that were not made here."""
