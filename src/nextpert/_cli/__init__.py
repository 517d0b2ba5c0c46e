"""The command ``nextpert``: its options, its steps and its report."""
