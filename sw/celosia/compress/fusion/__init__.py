"""Fusing layers: exact folds, and merged layers that are trained anew."""
