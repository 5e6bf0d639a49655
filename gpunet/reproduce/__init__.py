"""All experiments in one go."""
