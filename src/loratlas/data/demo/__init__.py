"""The bundled world: a model and two fine-tuning tasks that need no download."""
