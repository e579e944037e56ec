"""Contact as a convex layer, unrolled in time: masses and friction inferred from trajectories by gradient descent."""
