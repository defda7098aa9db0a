"""Removing single weights: masks, rounds, rates, and budgets of predicted cycles."""
