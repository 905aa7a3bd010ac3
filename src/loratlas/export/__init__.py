"""Adapters and configurations for elsewhere."""
