"""Where adapters go."""
