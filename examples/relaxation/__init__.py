"""Non-convex estimates that a semidefinite relaxation finds and certifies, and what their gradients can be used for."""
