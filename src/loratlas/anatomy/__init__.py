"""What a model is made of: sites and their roles, read without any weight."""
