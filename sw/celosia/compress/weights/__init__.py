"""Removing single weights: rates, selections, rounds, and budgets of predicted cycles."""
