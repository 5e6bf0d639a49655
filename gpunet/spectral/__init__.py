"""Where singular vectors meet networks: weights computed from data, and classifiers in closed form."""
