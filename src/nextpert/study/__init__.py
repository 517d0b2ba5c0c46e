"""What is computed for a screen once it is read: targets, plans, advice, and the diagnosis."""
