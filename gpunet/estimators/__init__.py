"""Estimators after scikit-learn's manner: what `Pipeline`, `GridSearchCV` and `cross_val_score` take."""
