"""The experiments: one file a document, with its settings, claims and run; registry and result schema beside them."""
