"""Non-linear least squares by Gauss and Newton's method, each step a convex layer, differentiated in four ways."""
