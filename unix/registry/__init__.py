"""Trained models after training: what each came from, which one is promoted, and when the next is due."""
