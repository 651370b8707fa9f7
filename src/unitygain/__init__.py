"""Measures how each part of a PyTorch model amplifies signal and gradient: where they explode or vanish."""
