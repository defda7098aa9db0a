"""Answers as inputs come: where inputs come from, what runs them, and the page that shows them."""
