"""Somebody's own network, smaller, with proof: weights cut by their singular vectors."""
