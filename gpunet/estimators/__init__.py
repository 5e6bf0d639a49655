"""Estimators after scikit-learn's manner: what `Pipeline`, `GridSearchCV` and `cross_val_score` take."""

from gpunet.extras import need

need("an estimator", "sklearn", "scipy")
