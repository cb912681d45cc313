"""How algorithms are compared: many seeds, several tasks, and how sure one may be of the difference."""
