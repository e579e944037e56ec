"""An elastic net whose penalties are tuned by gradient descent through the layer that fits it."""
