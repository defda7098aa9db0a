"""Factorising layers: SVD, Tucker-2, and how to choose ranks."""
