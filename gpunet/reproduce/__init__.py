"""All experiments in one go: what is run, what of it is there already, and `claims.json`."""
