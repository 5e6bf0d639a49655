"""All experiments in one go: what is run, what of it is there already, and `claims.json`."""

from gpunet.extras import need

need("gpunet reproduce", "sklearn", "msgspec", "scipy", "matplotlib", "jinja2", "optuna", "sqlalchemy")
