"""Edit a store after the fact: plan, look at what would change, apply as one transaction, undo."""
