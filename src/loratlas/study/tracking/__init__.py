"""Where else a person may look at trials: stored records, mirrored to experiment trackers."""
