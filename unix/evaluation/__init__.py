"""Predictions of a trained model, and how good they are."""
