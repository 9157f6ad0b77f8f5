"""The built-in engine: changes pixels by recipes, and knows nothing of Django."""
