"""unitygain measures how each part of a PyTorch model amplifies signal and gradient, and says where they explode or vanish."""
