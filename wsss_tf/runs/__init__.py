"""What the entry points call: recipes, training, validation, and the kinds of inference."""
