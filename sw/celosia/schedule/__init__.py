"""Scheduling: how an array runs a quantised graph, before any word is made of it."""
