"""What is computed for a screen once it is read: targets, plates, advice, and the diagnosis."""
