"""The packed engine: many trials on one frozen base, each with its own adapters and rows."""
