"""The file a person writes, and what is made of it."""
