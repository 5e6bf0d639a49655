"""Networks: layers, models on flat arenas, optimisers and training, on any backend."""
