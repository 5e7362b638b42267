"""The user's model: which layers it has, what a row is, and hooks that leave no trace. Knows no instrument."""
